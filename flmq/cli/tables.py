"""A run's rounds and its clients' parts as CSV, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from flmq.common.cleaning import one_line
from flmq.common.files import replacing
from flmq.common.jsonvalues import to_json
from flmq.observe.events import RoundCounts
from flmq.observe.measures import measures_of
from flmq.observe.record import OutcomeRecord, RoundRecord

__all__ = ["MOST_MEASURES", "defused", "measured_names", "write_parts", "write_rounds"]

MOST_MEASURES = 500
"""Maximum number of measurements with a column of their own; others are left out, and counted."""

_COUNTS = tuple(each.name for each in fields(RoundCounts))
_FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001  spreadsheets take these too
_TIMES = (
    "published_ms",
    "taken_ms",
    "begun_ms",
    "training_started_ms",
    "training_ended_ms",
    "upload_started_ms",
    "received_ms",
    "counted_ms",
    "deliveries",
    "deaths",
    "offset_ms",
    "offset_error_ms",
    "clock_note",
)
"""Properties of a part's times: the worker's are by the server's clock."""


def defused(text: str) -> str:
    """Return a peer's text as one that spreadsheets do not take for a formula."""
    clean = one_line(text)
    return f"'{clean}" if clean.startswith(_FORMULAS) else clean


def measured_names(rounds: Iterable[RoundRecord]) -> list[str]:
    """Return the names of all measurements, in the order in which they are shown."""
    names: dict[str, None] = {}
    for closed in rounds:
        names.update(dict.fromkeys(measures_of(closed)))
    return list(names)


def write_rounds(rounds: Iterable[RoundRecord], names: Sequence[str], path: Path) -> int:
    """Write a line a round to ``path``, with a column for each of the measurements ``names``."""
    head = [
        "round",
        "seconds",
        *(f"{phase}_{count}" for phase in ("fit", "evaluate") for count in _COUNTS),
        "bytes_down",
        "bytes_up",
        "changed",
        "digest",
        "closed_fit",
        "closed_evaluate",
        "note",
        *map(defused, names),
    ]
    return _write(path, head, (_round(each, names) for each in rounds))


def write_parts(rounds: Iterable[RoundRecord], path: Path) -> int:
    """Write a line a client's part in a phase to ``path``; its metrics are a cell of JSON."""
    head = ["round", "phase", "client", "outcome", "count", "reason", "seconds", "examples"]
    lines = (_part(each, said) for each in rounds for said in each.outcomes)
    return _write(path, [*head, "bytes", *_TIMES, "metrics", "metrics_left_out"], lines)


def _round(closed: RoundRecord, names: Sequence[str]) -> list[Any]:
    measured = measures_of(closed)
    return [
        closed.server_round,
        closed.seconds,
        *(getattr(at, count) for at in (closed.fit, closed.evaluate) for count in _COUNTS),
        closed.bytes_down,
        closed.bytes_up,
        closed.changed,
        closed.digest,
        defused(closed.closed.get("fit", "")),
        defused(closed.closed.get("evaluate", "")),
        defused(closed.note),
        *(_cell(measured.get(name)) for name in names),
    ]


def _part(closed: RoundRecord, said: OutcomeRecord) -> list[Any]:
    times = [None if said.times is None else getattr(said.times, name) for name in _TIMES]
    return [
        closed.server_round,
        said.phase,
        defused(said.client_id),
        said.word,
        said.count,
        defused(said.reason),
        said.seconds,
        said.num_examples,
        said.bytes,
        *map(_cell, times),
        json.dumps(to_json(dict(said.metrics))) if said.metrics else "",
        said.metrics_left_out,
    ]


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else defused(str(value))


def _write(path: Path, head: Sequence[str], lines: Iterator[list[Any]]) -> int:
    """Write the table, a line at a time, and return how many lines it has."""
    count = 0
    with replacing(path) as file:
        file.write(_line(head))
        for line in lines:
            file.write(_line(line))
            count += 1
    return count


def _line(cells: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode(errors="backslashreplace")
