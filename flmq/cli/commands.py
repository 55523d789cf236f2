"""Command group: clean errors for what cannot be read, and options that all commands have."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from typer.core import TyperGroup

from flmq.cli.saying import say, says_json
from flmq.cli.verbosity import accept_verbosity
from flmq.common.environment import LOG_FORMAT, LogFormat

__all__ = ["Commands"]

_OPTION = "--log-format"


class Commands(TyperGroup):
    """Suggest a similar command once: both typer and newer versions of click do.

    Where the log is for programs, a command that cannot be read is a line for programs too.
    """

    def __init__(self, **attributes: Any) -> None:
        """Have the group and its commands take ``--quiet`` and ``--verbose``."""
        super().__init__(**attributes)
        for command in (self, *self.commands.values()):
            accept_verbosity(command)

    def main(self, *args: Any, **more: Any) -> Any:
        """Read the command line and run the command; see `click.Command.main`."""
        if not _wants_json(sys.argv[1:]):
            return super().main(*args, **more)
        os.environ[LOG_FORMAT] = LogFormat.JSON
        try:
            status = super().main(*args, **{**more, "standalone_mode": False})
        except click.Abort:
            say("aborted", "CRITICAL")
            raise SystemExit(1) from None
        except click.ClickException as error:
            say(f"{type(error).__name__}: {error.format_message()}", "CRITICAL")
            raise SystemExit(error.exit_code) from None
        raise SystemExit(status if isinstance(status, int) else 0)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if "Did you mean" in error.message and getattr(error, "possibilities", None):
                error.possibilities = []  # type: ignore[attr-defined]
            raise


def _wants_json(arguments: Sequence[str]) -> bool:
    """Return whether the log is to be for programs, before the command line has been read."""
    if "--json" in arguments:
        return True  # what it prints is for programs, and so are its errors
    for position, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option == _OPTION:
            return (value or "".join(arguments[position + 1 : position + 2])) == LogFormat.JSON
    return says_json()
