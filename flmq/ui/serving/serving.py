"""Serve the page: its address, its token, its certificate, until a signal."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from flmq.common.urls import parse_broker_url
from flmq.ui.errors import AddressTaken, InvalidPageOptions
from flmq.ui.reading.broker import BrokerLook
from flmq.ui.reading.runs import Runs
from flmq.ui.serving.app import build_app
from flmq.ui.serving.guard import Guarding

__all__ = ["PageOptions", "serve"]

_LOCAL = ("localhost", "127.0.0.1", "::1")
_LEAST = 16
"""Characters of a token."""


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Where the page is, and who may look at it."""

    runs_dir: Path
    host: str
    port: int
    """0: any that is free."""
    token_file: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None
    plain: bool = False
    """Whether it may be served without TLS elsewhere than on this machine."""
    broker: str | None = None
    """URL of the broker that the broker's view looks at; None: it says how to name one."""


def serve(options: PageOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``say`` gets the URL, once somebody can ask for it.

    Raises:
        AddressTaken: the address cannot be had.
        InvalidBrokerUrl: the broker's URL is none.
        InvalidPageOptions: options do not go together, or a file of theirs cannot be read.
    """
    guarding = _guarding(options)
    broker = None
    if options.broker is not None:
        parse_broker_url(options.broker)
        broker = BrokerLook(options.broker)
    listening = _listening(options.host, options.port)
    port = listening.getsockname()[1]
    app, changes = build_app(Runs(options.runs_dir), guarding, broker)
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        lifespan="on",
        ws="none",
        ssl_certfile=options.certfile,
        ssl_keyfile=options.keyfile,
        server_header=False,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=32 * 1024,
        limit_concurrency=500,
    )
    server = _Server(config, changes.end)
    try:
        config.load()
    except (OSError, ValueError) as error:
        listening.close()
        raise InvalidPageOptions(f"the certificate of the page cannot be used: {error}") from error
    say(_url(options, guarding, port))
    with listening:
        server.run([listening])


class _Server(uvicorn.Server):
    """Ends its streams first: a graceful end waits for all answers."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()
        await super().shutdown(sockets)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise AddressTaken(host, port, error) from error
    return listening


def _guarding(options: PageOptions) -> Guarding:
    secure = options.certfile is not None
    if secure != (options.keyfile is not None):
        raise InvalidPageOptions("a certificate needs its key: give --certfile and --keyfile")
    local = _is_local(options.host)
    if not local and not secure and not options.plain:
        raise InvalidPageOptions(
            f"the page would travel unencrypted to {options.host}: give --certfile and --keyfile "
            "(`flmq certs` makes some), or say --plain-http if a proxy in front of it has TLS"
        )
    token = None
    if options.token_file is not None:
        token = _token_in(options.token_file)
    elif not local:
        token = secrets.token_urlsafe(24)
    return Guarding((*_LOCAL, options.host.lower()) if local else None, token, secure)


def _token_in(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPageOptions(f"the token file {path} cannot be read: {error}") from error
    if len(token) < _LEAST:
        raise InvalidPageOptions(
            f"the token in {path} is shorter than {_LEAST} characters: "
            f"openssl rand -hex 24 > {path} makes one"
        )
    if not token.isascii() or not token.isprintable():
        # It travels in a URL and in a cookie.
        raise InvalidPageOptions(
            f"the token in {path} is not one line of ASCII characters: "
            f"openssl rand -hex 24 > {path} makes one"
        )
    return token


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(options: PageOptions, guarding: Guarding, port: int) -> str:
    host = options.host
    if host in ("0.0.0.0", "::"):  # noqa: S104  it is asked for
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if guarding.secure else 'http'}://{shown}:{port}/"
    if guarding.token is None:
        return url
    # A token that its owner wrote into a file is not for the terminal.
    return f"{url}?token={'...' if options.token_file else guarding.token}"
