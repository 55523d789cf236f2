"""Parameters of commands: derived from a dataclass's options, or shared by commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flmq.common.environment import BROKER_URL
from flmq.common.errors import UsageError
from flmq.common.options import Option, options_of
from flmq.common.typing import Scalar
from flmq.server.options import RunOptions

__all__ = ["Broker", "InvalidPair", "RunsDir", "pairs", "with_options"]

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        envvar=BROKER_URL,
        # The variable's value contains a password: it must not appear in --help.
        show_default=False,
        help="URL of the broker: amqp://user:password@host:5672/vhost, or amqps://. Prefer the "
        "environment variable: other users of this machine can read command lines.",
    ),
]


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return a typer command that calls ``function``.

    Each parameter of ``function`` whose type is a dataclass with options (`flmq.common.options`)
    becomes one command-line option per field.
    """
    signature = inspect.signature(function, eval_str=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, dict[str, Option]]] = {}
    for parameter in signature.parameters.values():
        if declared := dict(options_of(parameter.annotation)):
            groups[parameter.name] = parameter.annotation, declared
            parameters += (_parameter(name, each) for name, each in declared.items())
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def command(**typed: Any) -> None:
        for group, (kind, declared) in groups.items():
            values = {name: _read(each, typed.pop(name)) for name, each in declared.items()}
            typed[group] = kind(**values)
        function(**typed)

    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _parameter(name: str, said: Option) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=said.default,
        annotation=Annotated[said.type, _shown(said)],
    )


def _shown(said: Option) -> Any:
    return typer.Option(
        *said.names,
        envvar=said.env,
        min=said.at_least,
        max=said.at_most,
        help=said.help,
        show_default=said.show_default,
    )


def _read(said: Option, typed: Any) -> Any:
    return typed if said.read is None or typed is None else said.read(typed)


RunsDir = Annotated[Path, _shown(dict(options_of(RunOptions))["runs_dir"])]
"""As `RunOptions` has it."""


class InvalidPair(UsageError):
    """A ``key=value`` text is malformed."""


def pairs(option: str, texts: Sequence[str]) -> dict[str, Scalar]:
    """Parse ``key=value`` texts; a value is a bool, an int, a float, or else text.

    In double quotes, it is always text.

    Raises:
        InvalidPair: a text has no key or no "=".
    """
    read: dict[str, Scalar] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidPair(f"{option} {text!r} is not of the form key=value")
        read[key] = _scalar(value)
    return read


def _scalar(text: str) -> Scalar:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
