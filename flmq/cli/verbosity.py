"""``--quiet`` and ``--verbose``: options of every command, with one meaning for all.

Child processes inherit them by the environment, as they do the format of the log.
"""

from __future__ import annotations

import logging
import os
from enum import StrEnum
from typing import Any

import click
from typer.core import TyperOption

from flmq.common.errors import UsageError

__all__ = ["BothVerbosities", "Verbosity", "accept_verbosity", "level_of_log", "verbosity"]

_VERBOSITY = "FLMQ_VERBOSITY"


class Verbosity(StrEnum):
    """How much a command says on standard error."""

    QUIET = "quiet"
    """Warnings and errors alone: no view, no progress, no hints."""
    NORMAL = "normal"
    VERBOSE = "verbose"
    """All of the log, down to its finest level, in place of a view; tracebacks of errors."""


class BothVerbosities(UsageError):
    """``--quiet`` and ``--verbose`` are both given."""


def verbosity() -> Verbosity:
    """Return how much is to be said; never raises."""
    said = os.environ.get(_VERBOSITY, "")
    return Verbosity(said) if said in set(Verbosity) else Verbosity.NORMAL


def level_of_log(level: int) -> int:
    """Return from which level up the log is shown, where it would be from ``level``."""
    match verbosity():
        case Verbosity.QUIET:
            return max(level, logging.WARNING)
        case Verbosity.VERBOSE:
            return logging.DEBUG
    return level


def accept_verbosity(command: click.Command) -> None:
    """Give ``command`` both options, unless it has one of the name."""
    known = {name for each in command.params for name in each.opts}
    for wanted, text in (
        (Verbosity.QUIET, "Say nothing but warnings and errors."),
        (Verbosity.VERBOSE, "Say all that the log has, and tracebacks of errors."),
    ):
        name = f"--{wanted.value}"
        if name not in known:
            command.params.append(
                TyperOption(
                    param_decls=[name],
                    is_flag=True,
                    default=False,
                    show_default=False,
                    expose_value=False,
                    callback=_set,
                    help=text,
                )
            )


def _set(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if not value:
        return
    wanted = Verbosity(str(parameter.name))
    typed = context.find_root().meta  # which a command shares with its group
    if typed.setdefault(_VERBOSITY, wanted) is not wanted:
        raise BothVerbosities("--quiet and --verbose contradict each other: drop one of the two")
    os.environ[_VERBOSITY] = wanted.value
    if wanted is Verbosity.VERBOSE:
        os.environ["FLMQ_DEBUG"] = "1"
