"""Select clients by the properties that they said hello with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flmq.common.failure_text import named_error
from flmq.common.logger import get_logger
from flmq.common.typing import Properties, Scalar
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion, InvalidCriterion

__all__ = ["ByProperty"]

logger = get_logger(__name__)

Wanted = Scalar | set[Scalar] | frozenset[Scalar] | list[Scalar] | tuple[Scalar, ...]
Test = Callable[[Any], bool]

_SCALARS = (bool, int, float, str, bytes)
_MANY = (set, frozenset, list, tuple)


class ByProperty(Criterion):
    """The clients with such properties, as in ``ByProperty(region={"de", "fr"}, gpu=True)``.

    A property fulfils a value that it equals; a set, list or tuple that holds it; or a function
    that returns true for it, as in ``ByProperty(memory_gb=lambda gb: gb >= 8)``. A predicate alone
    gets all properties: ``ByProperty(lambda properties: ...)``. A client that lacks a property is
    not selected, nor is one for whose properties a function raises: they may be anything.

    `sample` waits until enough such clients are there.
    """

    def __init__(
        self,
        predicate: Callable[[Properties], bool] | None = None,
        /,
        **wanted: Wanted | Test,
    ) -> None:
        """Select the clients that fulfil the predicate, if given, and each of ``wanted``.

        Raises:
            InvalidCriterion: nothing is given, or something that no property can fulfil.
        """
        if predicate is None and not wanted:
            raise InvalidCriterion(
                'ByProperty() selects by nothing: give properties, as in region="eu", or a '
                "predicate of all of them"
            )
        if predicate is not None and not callable(predicate):
            raise InvalidCriterion(
                f"the predicate is a {type(predicate).__name__}: give a function of the client's "
                "properties"
            )
        self._predicate = predicate
        self._wanted = wanted
        self._tests = {name: _test(name, value) for name, value in wanted.items()}
        self._said = False

    def select(self, client: ClientProxy) -> bool:
        """Return whether its properties fulfil everything."""
        return not self.why_not(client)

    def why_not(self, client: ClientProxy) -> str:
        """Name the first property that it lacks, or that is another."""
        properties = client.properties
        for name, test in self._tests.items():
            if name not in properties:
                return f"have no {name}"
            if not self._holds(test, properties[name], client):
                return f"have another {name}"
        if self._predicate is not None and not self._holds(self._predicate, properties, client):
            return "do not fulfil the predicate"
        return ""

    def awaited(self) -> Criterion:
        """Wait for clients with such properties."""
        return self

    def _holds(self, test: Test, value: Any, client: ClientProxy) -> bool:
        try:
            return bool(test(value))
        except Exception as error:
            if not self._said:
                self._said = True
                logger.warning(
                    "%r raised for the properties of client %s, which is not selected, nor are "
                    "others for whom it raises: %s",
                    self,
                    client.cid,
                    named_error(error),
                )
            return False

    def __repr__(self) -> str:
        """Show what is wanted."""
        shown = ["a predicate"] if self._predicate is not None else []
        shown += [f"{name}={_shown(value)}" for name, value in self._wanted.items()]
        return f"ByProperty({', '.join(shown)})"


def _test(name: str, wanted: Wanted | Test) -> Test:
    if callable(wanted):
        return wanted
    if isinstance(wanted, _SCALARS):
        return lambda value: value == wanted
    if not isinstance(wanted, _MANY):
        raise InvalidCriterion(
            f"{name} is a {type(wanted).__name__}: give a value, a set or list of values, or a "
            "function that says whether a value will do"
        )
    if not wanted:
        raise InvalidCriterion(f"{name} is empty, and no property is in it: give some values")
    several = tuple(wanted)
    return lambda value: value in several


def _shown(wanted: Wanted | Test) -> str:
    if callable(wanted):
        return "a function"
    if isinstance(wanted, set | frozenset):  # in an order that every process gives them
        return f"{{{', '.join(sorted(map(repr, wanted)))}}}"
    return repr(wanted)
