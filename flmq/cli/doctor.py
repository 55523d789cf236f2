"""``flmq doctor``: what is installed, whether the broker answers, and how to fix problems."""

from __future__ import annotations

from typing import Annotated

import typer

from flmq.broker.doctor import run_checks
from flmq.cli.exit_codes import ExitCode
from flmq.cli.options import Broker

__all__ = ["doctor"]

_MARKS = {True: "ok", False: "!!", None: "--"}


def doctor(
    broker: Broker = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only what is amiss.")] = False,
) -> None:
    """Check this machine and the broker; for each problem, show the command that fixes it."""
    checks = run_checks(broker)
    width = max(len(check.name) for check in checks)
    for check in checks:
        if quiet and check.ok is not False:
            continue
        typer.echo(f"{_MARKS[check.ok]}  {check.name:<{width}}  {check.found}")
        if check.mend and check.ok is not True:
            typer.echo(f"    {'':<{width}}  mend: {check.mend}")
    if any(check.ok is False for check in checks):
        raise typer.Exit(ExitCode.CHECK_FAILED)
