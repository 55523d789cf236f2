"""``flmq runs report``: a run as one file of HTML, to mail or to archive."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from flmq.cli.export import Job, NotExported, run_in
from flmq.cli.saying import hint
from flmq.ui.errors import NotInstalled

__all__ = ["report"]


def report(
    context: typer.Context,
    job: Job,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The file; runs/<job>/report.html, if not given."),
    ] = None,
) -> None:
    """Write a run as one HTML file, which shows it as the page does, without any network."""
    runs_dir: Path = context.obj
    with ExitStack() as stack:
        run_in(runs_dir, job, stack)  # says if there is none
    try:
        # Only here: what renders the page is an extra, and no other command needs it.
        from flmq.ui.report.report import write_report
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("jinja2", "markupsafe"):
            raise
        raise NotInstalled from error
    path = runs_dir / job / "report.html" if to is None else to
    try:
        written = write_report(runs_dir, job, path)
    except OSError as error:
        raise NotExported(f"{path} cannot be written: {error.strerror or error}") from error
    typer.echo(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if written.left_out:
        hint(written.left_out)
