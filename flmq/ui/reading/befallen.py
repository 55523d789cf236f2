"""What befell a run, from its event log: marks, presence, who was away when. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from flmq.observe.eventlog.entries import Kind
from flmq.observe.eventlog.reader import Happened, ServerInCharge
from flmq.observe.remarks import BROKEN_STATES

__all__ = ["away_of", "marks_of", "online_in", "server_json"]

_HOW = {
    "resume": "server resumed the run",
    "takeover": "a standby server took over",
    "begun": "run begun",
}


def server_json(server: ServerInCharge) -> dict[str, Any]:
    """Return a server that was in charge."""
    return {
        "epoch": server.epoch,
        "host": server.host,
        "pid": server.pid,
        "version": server.version,
        "from_ms": server.from_unix_ms,
        "to_ms": server.to_unix_ms,
        "how": server.how,
        "ended": server.ended,
    }


def marks_of(
    servers: Sequence[ServerInCharge], happened: Sequence[Happened]
) -> list[dict[str, Any]]:
    """Return what is marked on the charts of a run, in the order of time."""
    marks = [*_of_servers(servers), *_of_connections(happened)]
    for each in happened:
        if each.kind == Kind.KILL:
            marks.append(_mark(each.at_unix_ms, "kill", each.text, each.server_round))
        elif each.kind == Kind.NOTE:
            marks.append(_mark(each.at_unix_ms, "note", each.text, each.server_round))
    return sorted(marks, key=lambda mark: int(mark["at_ms"]))


def _of_servers(servers: Sequence[ServerInCharge]) -> Iterable[dict[str, Any]]:
    for before, server in zip([None, *servers], servers, strict=False):
        if before is None:
            continue
        # A job that had ended, and is only looked at again, is no resumption.
        killed = "was killed, or lost" if before.to_unix_ms is None else f"had {before.ended}"
        text = (
            f"{_HOW.get(server.how, server.how)}: {server.host}, process {server.pid}; the server "
            f"before it ({before.host}, process {before.pid}) {killed}"
        )
        kind = "takeover" if server.how == "takeover" else "resume"
        yield _mark(server.from_unix_ms, kind, text)


def _of_connections(happened: Iterable[Happened]) -> Iterable[dict[str, Any]]:
    """Return outages, each from the first connection lost to the last that came back."""
    broken: dict[str, str] = {}
    mark: dict[str, Any] | None = None
    for each in happened:
        if each.kind != Kind.CONNECTION:
            continue
        if each.word in BROKEN_STATES:
            if mark is None:
                kind = "blocked" if each.word == "blocked" else "outage"
                mark = _mark(each.at_unix_ms, kind, f"connection {each.word}: {each.text}")
            broken[each.who] = each.word
        else:
            broken.pop(each.who, None)
            if mark is not None and not broken:
                yield {**mark, "until_ms": each.at_unix_ms}
                mark = None
    if mark is not None:
        yield mark


def _mark(at: int, kind: str, text: str, server_round: int | None = None) -> dict[str, Any]:
    return {"at_ms": at, "until_ms": None, "round": server_round, "kind": kind, "text": text}


def away_of(presence: Iterable[Happened]) -> dict[str, list[tuple[int, int | None]]]:
    """Return from when to when each client was not connected."""
    away: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    since: dict[str, int] = {}
    for each in presence:
        if each.word == "online":
            begun = since.pop(each.who, None)
            if begun is not None:
                away[each.who].append((begun, each.at_unix_ms))
        else:
            since.setdefault(each.who, each.at_unix_ms)
    for client, begun in since.items():
        away[client].append((begun, None))
    return dict(away)


def online_in(latest: Iterable[Happened]) -> int:
    """Return how many clients are online, by the last change of each."""
    return sum(each.word == "online" for each in latest)
