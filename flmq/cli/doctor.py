"""``flmq doctor``: what is installed, whether the broker answers, and how to fix problems."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flmq.broker.check import Check
from flmq.broker.doctor import run_checks
from flmq.cli.clocks import clocks_of_clients
from flmq.cli.exit_codes import ExitCode
from flmq.cli.options import Broker
from flmq.cli.saying import say_json
from flmq.common.environment import BROKER_URL
from flmq.sites.federation import Federation
from flmq.sites.links import links_of
from flmq.sites.reading import read_federation
from flmq.transport import open_transport

__all__ = ["doctor"]

_MARKS = {True: "ok", False: "!!", None: "--"}


def doctor(
    broker: Broker = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            envvar="FLMQ_FEDERATION",
            help="federation.toml: look at its sites' links, too.",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[
        float,
        typer.Option(
            "--listen",
            min=0,
            max=3600,
            metavar="SECONDS",
            help="Hear clients for so long, and compare their clocks with this machine's.",
        ),
    ] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only what is amiss.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: a list of findings, as JSON.")
    ] = False,
) -> None:
    """Check this machine and the broker; for each problem, show the command that fixes it."""
    if as_json:
        say_json()
    federation = None if file is None else read_federation(file)
    if federation is None or broker:
        url = broker or os.environ.get(BROKER_URL)
        checks = run_checks(broker)
    else:
        url = federation.hub.url.full
        checks = run_checks(url, management=federation.hub.management)
    if url is not None and any(check.name == "broker" and check.ok for check in checks):
        checks.append(clocks_of_clients(lambda: open_transport(url, name="flmq doctor"), listen))
    if federation is not None:
        checks += _links(federation)
    if as_json:
        told = [asdict(check) for check in checks if check.ok is False or not quiet]
        typer.echo(json.dumps(told, indent=2))
    else:
        _show(checks, quiet=quiet)
    if any(check.ok is False for check in checks):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _show(checks: Sequence[Check], *, quiet: bool) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        if quiet and check.ok is not False:
            continue
        typer.echo(f"{_MARKS[check.ok]}  {check.name:<{width}}  {check.found}")
        if check.mend and check.ok is not True:
            typer.echo(f"    {'':<{width}}  mend: {check.mend}")


def _links(federation: Federation) -> Iterator[Check]:
    """Judge the links between sites; what waits for one shows how far behind a site is."""
    for link in links_of(federation):
        yield Check(f"link {link.ends}", link.running, link.condition, link.mend)
