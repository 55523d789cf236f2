"""A run as a line of the list, and what stands above its charts. Pure but for the files' sizes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from flmq.journal.active_marker import is_in_charge
from flmq.journal.reader import JournalReader
from flmq.observe.eventlog.entries import Kind
from flmq.observe.eventlog.reader import EventLogReader, ServerInCharge
from flmq.observe.record import RunRecord
from flmq.ui.reading.befallen import online_in, server_json
from flmq.ui.reading.rows import plain

__all__ = [
    "Beginning",
    "beginning_of",
    "damaged_head",
    "head_json",
    "recorded_beginning",
    "whole_head",
]

_POINTS = 60
"""Points of a course in small."""
_SAMPLED = 240
"""Rounds that are looked at for them."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What is known of a run beside its rounds."""

    job: str
    state: str
    started_ms: int | None
    ended_ms: int | None = None
    ending: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = ""
    broker: str = ""
    num_rounds: int | None = None


def beginning_of(folder: Path, journal: JournalReader, record: RunRecord | None) -> Beginning:
    """Return what the journal and, if there is one, the record say of the run in ``folder``."""
    ending = journal.finished
    state = "running" if is_in_charge(folder) else "unfinished"
    if ending is not None:
        state = "finished"
    fingerprint = {} if journal.identity is None else journal.fingerprint()
    about = {} if journal.identity is None else journal.about
    recorded = _of_record(record)
    return Beginning(
        folder.name,
        state,
        journal.started_unix_ms if journal.identity is not None else None,
        recorded.ended_ms,
        {**recorded.ending, **(ending or {})},
        {**recorded.config, **plain(about), **fingerprint},
        recorded.strategy or fingerprint.get("strategy", "").rpartition(".")[2],
        recorded.broker,
        recorded.num_rounds,
    )


def recorded_beginning(folder: Path, record: RunRecord) -> Beginning:
    """Return what a record alone says of the run in ``folder``."""
    said = _of_record(record)
    state = "finished" if record.ended is not None and record.error is None else "unfinished"
    return Beginning(
        folder.name,
        state,
        _ms(record.started),
        said.ended_ms,
        said.ending,
        said.config,
        said.strategy,
        said.broker,
        said.num_rounds,
    )


def _of_record(record: RunRecord | None) -> Beginning:
    if record is None:
        return Beginning("", "", None)
    ending = {"stopped_early": record.stopped_early, "error": record.error or ""}
    return Beginning(
        record.job,
        "",
        None,
        None if record.ended is None else _ms(record.ended),
        ending,
        plain(record.about),
        record.strategy,
        record.broker,
        record.num_rounds,
    )


def head_json(
    folder: Path,
    beginning: Beginning,
    done: Sequence[Mapping[str, Any]],
    open_: Sequence[Mapping[str, Any]],
    events: EventLogReader,
) -> dict[str, Any]:
    """Return a run as the list of runs has it."""
    last: Mapping[str, Any] = done[-1] if done else {}
    current: Mapping[str, Any] = open_[-1] if open_ else last
    servers = events.servers()
    server = servers[-1] if servers else None
    running = beginning.state == "running"
    asked = current.get("fit") or {}
    if current.get("open_phase") == "evaluate":
        asked = current.get("evaluate") or {}
    return {
        "job": beginning.job,
        "state": beginning.state,
        "round": last.get("round", 0) if last.get("round", 0) > 0 else 0,
        "num_rounds": beginning.num_rounds or (server.num_rounds if server else None),
        "started_ms": beginning.started_ms,
        "ended_ms": _ended(beginning, server),
        "strategy": beginning.strategy or (server.strategy if server else ""),
        "loss": last.get("loss"),
        "metrics": last.get("metrics") or {},
        "courses": _courses(done),
        "online": online_in(events.latest_presence()) if running else None,
        "asked": asked.get("asked"),
        "waiting": _waiting(events) if running and not open_ else None,
        "digest": last.get("digest"),
        "resumes": max(0, len(servers) - 1),
        "in_charge": _in_charge(server) if running and server else None,
        "disk_bytes": _bytes(folder),
        "problem": events.problem,
        "stopped_early": beginning.ending.get("stopped_early", ""),
        "error": beginning.ending.get("error") or None,
    }


def damaged_head(folder: Path, problem: str) -> dict[str, Any]:
    """Return a run that cannot be read, and why."""
    empty = dict.fromkeys(
        ("num_rounds", "started_ms", "ended_ms", "loss", "online", "asked", "waiting", "digest")
    )
    return {
        "job": folder.name,
        "state": "damaged",
        "round": 0,
        **empty,
        "strategy": "",
        "metrics": {},
        "courses": {},
        "resumes": 0,
        "in_charge": None,
        "disk_bytes": _bytes(folder),
        "problem": problem,
        "stopped_early": "",
        "error": None,
    }


def whole_head(
    head: Mapping[str, Any],
    beginning: Beginning,
    done: Sequence[Mapping[str, Any]],
    events: EventLogReader,
) -> dict[str, Any]:
    """Return a run as its own page has it: the line of the list, and more."""
    servers = events.servers()
    return {
        **head,
        "broker": beginning.broker or (servers[-1].broker if servers else ""),
        "config": dict(beginning.config),
        "servers": [server_json(each) for each in servers],
        "metric_names": {
            "server": _names(done, "metrics"),
            "fit": _names(done, "fit_metrics"),
            "evaluate": _names(done, "evaluate_metrics"),
        },
        "left_out": events.left_out(),
    }


def _names(done: Sequence[Mapping[str, Any]], of: str) -> list[str]:
    names: dict[str, None] = {}
    for each in done:
        names.update(dict.fromkeys(each.get(of) or {}))
    return list(names)


def _courses(done: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Return the loss and each metric over rounds, thinned out; only what is a number."""
    courses: dict[str, list[list[float]]] = {}
    step = max(1, len(done) // _SAMPLED)
    for each in [*done[:-1:step], *done[-1:]]:
        values = {"loss": each.get("loss"), **(each.get("metrics") or {})}
        for name, value in values.items():
            if _is_number(value) and each["round"] > 0:
                courses.setdefault(name, []).append([each["round"], value])
    return {name: _thinned(points) for name, points in courses.items()}


def _thinned(points: list[list[float]]) -> list[list[float]]:
    if len(points) <= _POINTS:
        return points
    step = (len(points) - 1) / (_POINTS - 1)
    return [points[round(place * step)] for place in range(_POINTS)]


def _is_number(value: object) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value)  # type: ignore[arg-type]


def _ended(beginning: Beginning, server: ServerInCharge | None) -> int | None:
    if beginning.state == "running":
        return None
    return beginning.ended_ms or (server.to_unix_ms if server else None)


def _in_charge(server: ServerInCharge) -> dict[str, Any]:
    return {
        "host": server.host,
        "pid": server.pid,
        "epoch": server.epoch,
        "since_ms": server.from_unix_ms,
    }


def _waiting(events: EventLogReader) -> dict[str, Any] | None:
    said = events.of_kinds(Kind.AWAITED, most=1)
    return plain(said[-1].numbers) if said else None


def _bytes(folder: Path) -> int:
    """Return the bytes of all files of a run."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(where, name)).st_size  # noqa: PTH116, PTH118
            except OSError:
                continue
    return total


def _ms(text: str) -> int | None:
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return None
