"""Command group with a clean error for unknown commands."""

from __future__ import annotations

import click
from typer.core import TyperGroup

__all__ = ["Commands"]


class Commands(TyperGroup):
    """Suggest a similar command once: both typer and newer versions of click do."""

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
