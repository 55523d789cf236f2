"""``flmq broker``: a private RabbitMQ node for a laptop or a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flmq.broker import persistent_nodes
from flmq.broker.layout import FEDERATION_PLUGINS, MANAGEMENT_PLUGIN
from flmq.broker.ports import LOOPBACK
from flmq.broker.tls import NodeTls
from flmq.cli.certs import DAYS, DAYS_OF_AUTHORITY, certs_folder
from flmq.cli.commands import Commands
from flmq.cli.exit_codes import ExitCode
from flmq.cli.saying import hint, say_json
from flmq.common.environment import BROKER_URL
from flmq.common.errors import UsageError

__all__ = ["broker_app"]

broker_app = typer.Typer(
    cls=Commands,
    help="A private RabbitMQ node of your own on this machine.",
    no_args_is_help=True,
)


class NoManagement(UsageError):
    """A node runs without its management interface."""

    def __init__(self, name: str, up: str) -> None:
        """Name the node, and the command ``up`` that starts it."""
        self.name = name
        super().__init__(
            f"broker {name!r} runs without its management interface: stop it (flmq broker down) "
            f"and start it with one ({up} --management)"
        )


class NoTls(UsageError):
    """A node runs without TLS."""

    def __init__(self, name: str, up: str) -> None:
        """Name the node, and the command ``up`` that starts it."""
        self.name = name
        super().__init__(
            f"broker {name!r} runs without TLS: stop it (flmq broker down) and start it with it "
            f"({up} --tls)"
        )


_Name = Annotated[str, typer.Option(help="Which node, where you have several.")]


@broker_app.command()
def up(
    name: _Name = persistent_nodes.DEFAULT_NAME,
    management: Annotated[
        bool, typer.Option("--management", help="With the management interface.")
    ] = False,
    federation: Annotated[
        bool,
        typer.Option("--federation", help="As a site of several: with links and --management."),
    ] = False,
    tls: Annotated[
        bool, typer.Option("--tls", help="With a port for TLS, and its certificate.")
    ] = False,
    client_certs: Annotated[
        bool,
        typer.Option(
            "--client-certs",
            help="With --tls: only clients with a certificate, who log in by it.",
        ),
    ] = False,
    certs: Annotated[
        Path,
        typer.Option(
            "--certs",
            envvar="FLMQ_CERTS",
            help="The folder of `flmq certs`; what is missing in it is made.",
        ),
    ] = Path("certs"),
) -> None:
    """Start the node; it stays up until `flmq broker down`."""
    only = (MANAGEMENT_PLUGIN,) if management else ()
    result = persistent_nodes.up(
        name,
        plugins=FEDERATION_PLUGINS if federation else only,
        tls=_tls(certs, client_certs) if tls or client_certs else None,
    )
    node = result.node
    state = "is up already" if result.already else "is up"
    hint(f"broker {name!r} {state}: {node.shown_url} (pid {node.pid})")
    if node.management_url is not None:
        hint(f"management: {node.management_url}")
    if node.tls_port is not None:
        hint(f"TLS: localhost:{node.tls_port}")
    hint(f"log: {node.log}")
    hint(f"use it in this shell:  eval $({_up(name)})")
    typer.echo(f"export {BROKER_URL}={node.url}")


@broker_app.command()
def status(
    name: _Name = persistent_nodes.DEFAULT_NAME,
    url: Annotated[
        bool, typer.Option("--url", help="Print its URL alone, with its password.")
    ] = False,
    management_url: Annotated[
        bool, typer.Option("--management-url", help="Print its management interface's URL alone.")
    ] = False,
    tls_port: Annotated[
        bool, typer.Option("--tls-port", help="Print the port for TLS alone.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one object, without the password.")
    ] = False,
) -> None:
    """Show whether the node is running, and where."""
    if as_json:
        say_json()
    result = persistent_nodes.status(name)
    if as_json:
        _print_status(result)
        if not result.running or result.node is None:
            raise typer.Exit(ExitCode.CHECK_FAILED)
        return
    if not result.running or result.node is None:
        typer.echo(f"broker {name!r} is down{': ' + result.trouble if result.trouble else ''}")
        hint(f"start it: {_up(name)}")
        raise typer.Exit(ExitCode.CHECK_FAILED)
    if url:
        typer.echo(result.node.url)
        return
    if management_url:
        if result.node.management_url is None:
            raise NoManagement(name, _up(name))
        typer.echo(result.node.management_url)
        return
    if tls_port:
        if result.node.tls_port is None:
            raise NoTls(name, _up(name))
        typer.echo(result.node.tls_port)
        return
    typer.echo(
        f"broker {name!r} is up: {result.node.shown_url} (RabbitMQ {result.version}, "
        f"pid {result.node.pid})"
    )


@broker_app.command()
def down(
    name: _Name = persistent_nodes.DEFAULT_NAME,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete its data too, queues and all.")
    ] = False,
) -> None:
    """Stop the node, with all its processes."""
    result = persistent_nodes.down(name, purge=purge)
    state = "stopped" if result.was_running else "was not up"
    kept = "data deleted" if result.purged else f"data kept in {result.folder}"
    typer.echo(f"broker {name!r} {state}; {kept}")


def _print_status(result: persistent_nodes.StandingStatus) -> None:
    """Print the status as JSON; what is not there is null."""
    node = result.node if result.running else None
    told = {
        "name": result.name,
        "running": node is not None,
        "url": None if node is None else node.shown_url,
        "pid": None if node is None else node.pid,
        "version": result.version or None,
        "management_url": None if node is None else node.management_url,
        "tls_port": None if node is None else node.tls_port,
        "log": None if node is None else str(node.log),
        "trouble": result.trouble or None,
    }
    typer.echo(json.dumps(told, indent=2))


def _tls(path: Path, client_certs: bool) -> NodeTls:
    """Return what a node needs for TLS; certificates that are not there yet are made."""
    certs = certs_folder(path)
    if not certs.authority.certificate.exists():
        certs.init("flmq authority", DAYS_OF_AUTHORITY)
    server = certs.files_of_server("localhost")
    if not server.certificate.exists():
        server = certs.server(["localhost", LOOPBACK], DAYS)
    return NodeTls(server.certificate, server.key, certs.authority.certificate, client_certs)


def _up(name: str) -> str:
    """Return the command that starts the node and prints what `eval` sets."""
    return (
        "flmq broker up"
        if name == persistent_nodes.DEFAULT_NAME
        else f"flmq broker up --name {name}"
    )
