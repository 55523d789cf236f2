"""Options: fields of a dataclass that users set, each declared once for programs and commands.

``option`` is given as a field's default, and says how the field is typed on a command line:
`flmq.cli.options` makes a command's parameters from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

from flmq.common.errors import UsageError

__all__ = ["Option", "check_ranges", "option", "options_of"]

_T = TypeVar("_T")
_KEY = "option"
_SAME: Any = object()


@dataclass(frozen=True, slots=True)
class Option:
    """What a command line needs to know about a field, besides its name."""

    help: str
    type: Any
    """Type of the command-line value: the field's type, unless ``read`` converts it."""
    default: Any
    """The default on the command line, before ``read``."""
    names: tuple[str, ...] = ()
    """Such as ``--site``; if empty, derived from the field's name."""
    env: str | None = None
    """The environment variable that also sets it; None if there is none."""
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    """Such as "seconds", for errors."""
    show_default: bool = True
    read: Callable[[Any], Any] | None = None
    """Converts the command-line value to the field's; None if it is used unchanged."""


def option(
    default: _T,
    help: str,  # noqa: A002  the word that typer and argparse use
    *,
    typed_default: Any = _SAME,
    typed_as: Any = None,
    **about: Any,
) -> _T:
    """Declare a field with its ``default`` as an option; ``about`` are fields of `Option`.

    ``typed_default`` and ``typed_as`` are the default and the type on a command line, where these
    differ from the field's.
    """
    typed = default if typed_default is _SAME else typed_default
    said = Option(help, typed_as, typed, **about)
    return field(default=default, metadata={_KEY: said})


def options_of(kind: object) -> Iterator[tuple[str, Option]]:
    """Yield name and declaration of each option of the dataclass ``kind``, in order.

    Yields nothing if ``kind`` is not a dataclass.
    """
    if not isinstance(kind, type) or not is_dataclass(kind):
        return
    types = get_type_hints(kind)
    for each in fields(kind):
        said = each.metadata.get(_KEY)
        if said is not None:
            yield each.name, said if said.type else replace(said, type=types[each.name])


def check_ranges(options: object, error: type[UsageError]) -> None:
    """Check that each option of the dataclass ``options`` is in its range; None always is.

    Raises:
        error: one is not; the text says what to give.
    """
    for name, said in options_of(type(options)):
        value = getattr(options, name)
        if value is None or (said.at_least is None and said.at_most is None):
            continue
        low = float("-inf") if said.at_least is None else said.at_least
        high = float("inf") if said.at_most is None else said.at_most
        if not low <= value <= high:
            bounds = f"{low:g} or more" if said.at_most is None else f"{low:g} to {high:g}"
            unit = f", in {said.unit}" if said.unit else ""
            raise error(f"{name} is {value}: give {bounds}{unit}")
