"""The command line: its commands, and the boundary where errors become messages."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flmq import __version__
from flmq.cli.aggregate import aggregate
from flmq.cli.broker import broker_app
from flmq.cli.certs import certs_app
from flmq.cli.client import client
from flmq.cli.commands import Commands
from flmq.cli.demo.demo import demo
from flmq.cli.demo.sites import demo_sites
from flmq.cli.doctor import doctor
from flmq.cli.keys import keys_app
from flmq.cli.process import boundary, hide_broker_url
from flmq.cli.provision import provision_app
from flmq.cli.runs import runs_app
from flmq.cli.server import server
from flmq.cli.site import site_app
from flmq.cli.ui import ui

__all__ = ["app", "main"]

app = typer.Typer(
    name="flmq",
    cls=Commands,
    help="Federated learning over RabbitMQ: same bits, whatever fails.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.command()(server)
app.command()(client)
app.command()(aggregate)
app.command()(demo)
app.command()(demo_sites)
app.command()(doctor)
app.command()(ui)
app.add_typer(broker_app, name="broker")
app.add_typer(certs_app, name="certs")
app.add_typer(keys_app, name="keys")
app.add_typer(runs_app, name="runs")
app.add_typer(site_app, name="site")
app.add_typer(provision_app, name="provision")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"flmq {__version__}")
        raise typer.Exit


@app.callback()
def flmq(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="FLMQ_DEBUG", help="Show tracebacks of errors.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show flmq's version."
        ),
    ] = False,
) -> None:
    """Federated learning over RabbitMQ: same bits, whatever fails."""
    if debug:
        os.environ["FLMQ_DEBUG"] = "1"


def main() -> None:
    """Run the command line; exits with a status of `flmq.cli.exit_codes.ExitCode`."""
    with boundary():
        hide_broker_url()
        app(standalone_mode=True)
