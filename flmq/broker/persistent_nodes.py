"""Persistent brokers: private nodes that outlive the command that started them.

``flmq broker up``, ``status`` and ``down`` work on these. Each has a name and a folder under
``$XDG_STATE_HOME/flmq/broker`` (default ``~/.local/state``): its data, its logs, and ``state.json``
with what other processes need to know about it, readable by its owner alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flmq.broker.identity import write_private
from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.node import PrivateNode
from flmq.broker.node_processes import end_node
from flmq.broker.ports import LOOPBACK
from flmq.broker.probe import ask_broker
from flmq.broker.tls import NodeTls
from flmq.common.errors import BrokerError, StoredDataError, UsageError
from flmq.common.files import make_folder
from flmq.common.locks import process_lock
from flmq.common.urls import parse_broker_url

__all__ = [
    "DEFAULT_NAME",
    "InvalidBrokerName",
    "StandingDown",
    "StandingNode",
    "StandingStatus",
    "StandingUp",
    "down",
    "standing_names",
    "status",
    "up",
]

DEFAULT_NAME = "default"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class InvalidBrokerName(UsageError):
    """A name is not valid for a persistent broker."""

    def __init__(self, name: str) -> None:
        """Name the offending name."""
        self.name = name
        super().__init__(
            f"broker name {name[:80]!r} is not usable: choose 1 to 64 characters of "
            "A-Z, a-z, 0-9, '_' and '-'"
        )


@dataclass(frozen=True, slots=True)
class StandingNode:
    """A persistent broker as it was last started."""

    name: str
    url: str = field(repr=False)
    """Includes the password: do not log it."""
    shown_url: str
    pid: int
    amqp_port: int
    management_url: str | None
    """URL of the management API, without a login; None if started without it."""
    folder: str
    log: str
    started: float
    """Seconds since the epoch."""
    tls_port: int | None = None
    """The port for TLS, on loopback; None if started without."""


@dataclass(frozen=True, slots=True)
class StandingUp:
    """Result of `up`."""

    node: StandingNode
    already: bool
    """It was running already; nothing was started or changed."""


@dataclass(frozen=True, slots=True)
class StandingStatus:
    """State of a persistent broker."""

    name: str
    node: StandingNode | None
    """None if it was never started, or has been purged."""
    running: bool
    version: str
    """RabbitMQ's version; empty if it does not accept logins."""
    trouble: str
    """Why it does not accept logins although it is running; otherwise empty."""


@dataclass(frozen=True, slots=True)
class StandingDown:
    """Result of `down`."""

    name: str
    was_running: bool
    purged: bool
    """Whether its folder was deleted, including the data."""
    folder: str


def up(
    name: str = DEFAULT_NAME,
    *,
    plugins: Sequence[str] = (),
    tls: NodeTls | None = None,
    environ: Mapping[str, str] | None = None,
) -> StandingUp:
    """Start the persistent broker ``name`` unless it is running. Takes some seconds.

    It comes back with its data and at its old URL. ``plugins`` are enabled, and it listens for
    ``tls``, as in `PrivateNode`.

    Raises:
        InvalidBrokerName: the name is not valid.
        BrokerNotFound: it cannot be started.
        StoredDataError: its folder is damaged.
    """
    place = _place(name, environ)
    with _lock(place.parent):
        place.mkdir(mode=0o700, exist_ok=True)
        known = _load(place)
        node = PrivateNode(place / "node", plugins=plugins, tls=tls, guarded=False)
        if known is not None and node.pid == known.pid:
            return StandingUp(known, already=True)
        node.start()
        started = _describe(name, node, MANAGEMENT_PLUGIN in plugins, tls is not None)
        write_private(
            place / "state.json", json.dumps(dataclasses.asdict(started), indent=2) + "\n"
        )
        return StandingUp(started, already=False)


def status(name: str = DEFAULT_NAME, *, environ: Mapping[str, str] | None = None) -> StandingStatus:
    """Return the state of the persistent broker ``name``; changes nothing."""
    place = _place(name, environ)
    known = _load(place) if place.is_dir() else None
    if known is None or PrivateNode(place / "node").pid != known.pid:
        return StandingStatus(name, known, running=False, version="", trouble="")
    try:
        facts = ask_broker(parse_broker_url(known.url))
    except BrokerError as error:
        return StandingStatus(name, known, running=True, version="", trouble=str(error))
    return StandingStatus(name, known, running=True, version=facts.version, trouble="")


def down(
    name: str = DEFAULT_NAME,
    *,
    purge: bool = False,
    environ: Mapping[str, str] | None = None,
) -> StandingDown:
    """Stop the persistent broker ``name`` and all its processes; no error if it is down.

    Its data is kept for the next `up`; ``purge`` deletes it.
    """
    place = _place(name, environ)
    if not place.is_dir():
        return StandingDown(name, was_running=False, purged=False, folder=str(place))
    with _lock(place.parent):
        # Do not load its identity: a damaged folder can then still be stopped and purged.
        was_running = end_node(place / "node")
        if purge:
            shutil.rmtree(place)
    return StandingDown(name, was_running, purge, str(place))


def standing_names(*, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the sorted names of the persistent brokers started here and not purged."""
    root = _root(environ)
    if not root.is_dir():
        return []
    return sorted(place.name for place in root.iterdir() if (place / "state.json").exists())


def _root(environ: Mapping[str, str] | None) -> Path:
    environ = os.environ if environ is None else environ
    given = environ.get("XDG_STATE_HOME", "")
    # XDG base directory specification: ignore a path that is not absolute.
    state = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return state / "flmq" / "broker"


def _place(name: str, environ: Mapping[str, str] | None) -> Path:
    if not _NAME.fullmatch(name):
        raise InvalidBrokerName(name)
    return _root(environ) / name


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Let one command at a time start or stop brokers here."""
    make_folder(root)
    with process_lock(root / ".lock"):
        yield


def _load(place: Path) -> StandingNode | None:
    file = place / "state.json"
    try:
        return StandingNode(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise StoredDataError(
            f"{file} is damaged ({type(error).__name__}): 'flmq broker down --purge' begins anew"
        ) from error


def _describe(name: str, node: PrivateNode, management: bool, tls: bool) -> StandingNode:
    pid = node.pid
    assert pid is not None, "start() returned"
    return StandingNode(
        name=name,
        url=node.url,
        shown_url=node.shown_url,
        pid=pid,
        amqp_port=node.ports.amqp,
        management_url=f"http://{LOOPBACK}:{node.ports.management}" if management else None,
        folder=str(node.folder),
        log=str(node.log),
        started=time.time(),
        tls_port=node.ports.amqps if tls else None,
    )
