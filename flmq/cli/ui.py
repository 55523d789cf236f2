"""``flmq ui``: the page on runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flmq.cli.options import Broker, RunsDir
from flmq.ui.errors import NotInstalled

__all__ = ["DEFAULT_PORT", "ui"]

DEFAULT_PORT = 8420


def ui(
    runs_dir: RunsDir = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen at; another than loopback asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any that is free.")
    ] = DEFAULT_PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that the page asks for; else one is made."),
    ] = None,
    certfile: Annotated[Path | None, typer.Option(help="Certificate for TLS, PEM.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    plain_http: Annotated[
        bool,
        typer.Option("--plain-http", help="No TLS at another address: a proxy in front has it."),
    ] = False,
    broker: Broker = None,
) -> None:
    """Show runs on a page in the browser: running, finished and dead ones, without a broker.

    With a broker's URL there is a view of it, too, which asks it while somebody looks.
    """
    try:
        # Only here: the server's packages are an extra, and no other command needs them.
        from flmq.ui.serving.serving import PageOptions, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("jinja2", "starlette", "uvicorn"):
            raise
        raise NotInstalled from error
    options = PageOptions(runs_dir, host, port, token_file, certfile, keyfile, plain_http, broker)
    serve(options, lambda url: typer.echo(f"runs in {runs_dir}: {url}"))
