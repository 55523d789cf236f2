"""A group of commands: what it says of one that does not exist."""

from __future__ import annotations

import click
from typer.core import TyperGroup

__all__ = ["Commands"]


class Commands(TyperGroup):
    """Suggests a command of a similar name once: typer does, and newer versions of click do too."""

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
