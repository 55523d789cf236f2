"""What a shell completes beside the names of commands and options: names of jobs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flmq.common.environment import RUNS_DIR
from flmq.journal.opening import DATABASE

__all__ = ["complete_job"]

_MOST = 1000
"""Names that are offered: a shell shows no more anyway."""


def complete_job(ctx: click.Context, args: list[str], incomplete: str) -> list[str]:
    """Return the runs in the folder of runs whose name begins with ``incomplete``."""
    folder = _typed(ctx) or Path(os.environ.get(RUNS_DIR) or "runs")
    try:
        found = sorted(
            each.name
            for each in folder.iterdir()
            if each.name.startswith(incomplete)
            and ((each / DATABASE).exists() or (each / "history.json").exists())
        )
    except OSError:
        return []
    typed = ctx.params.get("jobs") or ()
    # A name of other characters was not made by flmq, and would be a command to some shells.
    plain = [
        name for name in found if name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    ]
    return [name for name in plain if name not in typed][:_MOST]


def _typed(ctx: click.Context) -> Path | None:
    """Return the folder of runs that has been typed before the command, if any."""
    while True:
        typed = ctx.params.get("runs_dir")
        if typed is not None:
            return Path(typed)
        if ctx.parent is None:
            return None
        ctx = ctx.parent
