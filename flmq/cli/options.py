"""Options that several commands share, with the environment variables that set them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flmq.common.environment import BROKER_URL
from flmq.common.errors import UsageError
from flmq.common.typing import Scalar

__all__ = ["Broker", "InvalidPair", "RunsDir", "Site", "pairs"]

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        envvar=BROKER_URL,
        # The variable's value has a password in it: it must not appear in --help.
        show_default=False,
        help="URL of the broker: amqp://user:password@host:5672/vhost, or amqps://. Prefer the "
        "environment variable: other users of this machine can read command lines.",
    ),
]
Site = Annotated[
    str,
    typer.Option("--site", envvar="FLMQ_SITE", help="The datacenter this process stands in."),
]
RunsDir = Annotated[
    Path,
    typer.Option("--runs-dir", envvar="FLMQ_RUNS_DIR", help="Folder of the runs' records."),
]


class InvalidPair(UsageError):
    """A ``key=value`` that is none."""


def pairs(option: str, texts: Sequence[str]) -> dict[str, Scalar]:
    """Read ``key=value`` texts; a value is a bool, an int, a float, or else text.

    In double quotes it is text whatever it looks like.

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
