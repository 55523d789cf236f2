"""From what a user gives as a client to a `Client`: an instance, a class or a function."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import cast

from flmq.client.client import Client
from flmq.client.context import ClientContext
from flmq.client.numpy_client import NumPyClient
from flmq.client.typing import ClientFn, ClientLike, to_client
from flmq.common.errors import UsageError

__all__ = ["ClientSource", "Clients", "InvalidClient", "checked_source"]

ClientSource = ClientLike | type[Client] | type[NumPyClient] | ClientFn
"""A client, its class, or a function of a `ClientContext` (or of nothing) that makes one."""


class InvalidClient(UsageError):
    """What was given as a client is none, and nothing that makes one."""

    def __init__(self, got: str) -> None:
        """Say what it is."""
        super().__init__(
            f"the client must be a flmq Client or NumPyClient, its class, or a function that makes "
            f"one, and is {got}"
        )


def checked_source(source: ClientSource) -> ClientSource:
    """Return ``source``; refuse, before anything is asked of a broker, what can be no client.

    A function that takes nothing is called for it, for what it makes depends on no task, and what
    it made is its first client. Of one that takes a context its annotations must do.

    Raises:
        InvalidClient: it is no client, or makes none.
    """
    _check_kind(source)
    if isinstance(source, ClientLike | type):
        return source
    try:
        signature = _signature(source)
    except ValueError:  # one written in C may have none
        return source
    _refuse_servers(source, "returns", signature.return_annotation)
    for parameter in signature.parameters.values():
        _refuse_servers(source, "takes", parameter.annotation)
        return source
    call = cast("Callable[[], ClientLike]", source)
    made = [call()]
    if not isinstance(made[0], ClientLike):
        raise InvalidClient(f"{_name(source)}, which made a {type(made[0]).__name__}")
    return lambda: made.pop() if made else call()


def _check_kind(source: object) -> None:
    if not isinstance(source, ClientLike) and not callable(source):
        raise InvalidClient(f"a {type(source).__name__}")
    if isinstance(source, type) and not issubclass(source, Client | NumPyClient):
        raise InvalidClient(f"the class {source.__name__}")


def _signature(source: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(source, eval_str=True)
    except (NameError, SyntaxError, TypeError):  # annotations of names that are not there
        return inspect.signature(source)


def _refuse_servers(source: object, verb: str, annotated: object) -> None:
    """Refuse a function that says itself that it is the server's."""
    kinds = annotated.__mro__ if isinstance(annotated, type) else ()
    if any(kind.__module__.startswith("flmq.server") for kind in kinds):
        raise InvalidClient(f"{_name(source)}, which {verb} {getattr(annotated, '__name__', '')}")


def _name(source: object) -> str:
    return getattr(source, "__name__", type(source).__name__)


def _make(source: ClientSource, context: ClientContext) -> Client:
    """Make the client of ``context``; what the user's code raises passes through."""
    if isinstance(source, ClientLike) or not callable(source):
        return to_client(source)
    made: Callable[..., object] = source
    return to_client(made(*_arguments(source, context)))


def _arguments(source: Callable[..., object], context: ClientContext) -> tuple[object, ...]:
    """What to call ``source`` with: the context, the client id (Flower's old ``cid``) or nothing.

    A class whose arguments all have defaults is made as it is, for they are its own.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = next(
        (p for p in inspect.signature(source).parameters.values() if p.kind in kinds), None
    )
    if first is None:
        return ()
    if isinstance(source, type) and first.default is not inspect.Parameter.empty:
        return ()
    wants_id = first.name == "cid" or first.annotation in (str, "str")
    return (context.client_id if wants_id else context,)


class Clients:
    """The clients of a worker, made when first needed, one a job and client id. Thread-safe."""

    def __init__(
        self,
        source: ClientSource,
        make_context: Callable[[str, str], ClientContext],
        *,
        keep: bool = True,
    ) -> None:
        """Make clients from ``source``; without ``keep``, anew for each task.

        Raises:
            InvalidClient: ``source`` is neither a client, nor its class, nor a function.
        """
        _check_kind(source)
        self._source = source
        self._make_context = make_context
        self._keep = keep
        self._made: dict[tuple[str, str], Client] = {}
        self._lock = threading.Lock()

    def get(self, job: str, client_id: str) -> Client:
        """The client of ``job`` and ``client_id``; what its factory raises passes through."""
        with self._lock:
            made = self._made.get((job, client_id))
        if made is None:
            made = _make(self._source, self._make_context(job, client_id))
            if self._keep:
                with self._lock:
                    self._made[job, client_id] = made
        return made

    def forget(self, job: str) -> None:
        """Drop the clients of a job that is over."""
        with self._lock:
            for key in [key for key in self._made if key[0] == job]:
                del self._made[key]
