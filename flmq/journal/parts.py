"""What each client did in a phase, as one compact blob a phase that stays for ever.

It is for people to look at: nothing of a run's result is read from it. In columns, as JSON that is
compressed: some 60 bytes a part. Who it was, and with what outcome, is in the phase's closing set,
or in the row of a late reply, whose parts are in the same order.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np

from flmq.common.jsonvalues import from_json
from flmq.common.times import TaskTimes, WorkerTimes
from flmq.common.typing import Scalar
from flmq.round import Outcome, client_of

__all__ = ["Part", "Whose", "decode_parts", "encode_parts", "few_metrics"]

_MOST_METRICS = 64
"""Metrics kept of a reply: a client decides how many it sends."""
_LONGEST = 200
"""Characters of a metric's name or text that are kept."""
_LONGEST_DETAIL = 4096
_LEVEL = 1
"""zlib's quickest: higher ones take thrice the time for a tenth of the bytes."""
_WORKER = ("taken_ms", "begun_ms", "training_started_ms", "training_ended_ms", "upload_started_ms")
_SERVER = ("published_ms", "received_ms", "counted_ms")
_UNTIMED, _OLDER = TaskTimes(), WorkerTimes()

Whose = tuple[str, Outcome | None, str]
"""The name of an ask, its outcome (None: it is awaited), and the reason."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one client did in a phase."""

    ask: str
    """The ask's name: the client's id, or that and a number where it was asked again."""
    outcome: Outcome | None
    """None: it is awaited."""
    reason: str = ""
    detail: str = ""
    """The end of the client's traceback, if any."""
    seconds: float | None = None
    """Seconds from the opening of the phase to the reply."""
    num_examples: int | None = None
    bytes: int = 0
    """Bytes received for the reply."""
    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    metrics_left_out: int = 0
    """How many metrics of the reply are not among them, as a client may send any number."""
    times: TaskTimes | None = None
    late_by: float = 0.0
    """Seconds after its phase had closed; 0 if it was open."""

    @property
    def client_id(self) -> str:
        """The client that was asked."""
        return client_of(self.ask)


def few_metrics(metrics: Mapping[str, Scalar]) -> tuple[dict[str, Scalar], int]:
    """Return the first of a client's metrics with long texts cut, and how many are left out."""
    if not metrics:
        return {}, 0
    first = list(metrics.items())[:_MOST_METRICS]
    kept = {
        name[:_LONGEST]: value[:_LONGEST] if isinstance(value, str | bytes) else value
        for name, value in first
    }
    return kept, len(metrics) - len(kept)


def encode_parts(parts: Sequence[Part]) -> bytes:
    """Return the parts as bytes, without whose they are."""
    base = next((p.times.published_ms for p in parts if p.times and p.times.published_ms), 0)
    shapes: dict[tuple[str, ...], int] = {}
    metrics = [few_metrics(part.metrics) for part in parts]
    times = [part.times or _UNTIMED for part in parts]
    workers = [each.worker or _OLDER for each in times]
    columns: dict[str, Any] = {
        "base": base,
        "seconds": [part.seconds for part in parts],
        "examples": [part.num_examples for part in parts],
        "bytes": [part.bytes for part in parts],
        "shape": [shapes.setdefault(tuple(kept), len(shapes)) for kept, _ in metrics],
        "metrics": [list(kept.values()) for kept, _ in metrics],
        "shapes": [list(shape) for shape in shapes],
        "left_out": _some(part.metrics_left_out + n for part, (_, n) in _pairs(parts, metrics)),
        "detail": _some(part.detail[-_LONGEST_DETAIL:] for part in parts),
        "late_by": _some(part.late_by for part in parts),
        "untimed": [place for place, part in enumerate(parts) if part.times is None],
        "older": [place for place, each in enumerate(times) if each.worker is None],
        "offset": [_rounded(each.offset_ms) for each in times],
        "error": [_rounded(each.offset_error_ms) for each in times],
        "deliveries": [each.deliveries for each in workers],
        "deaths": [each.deaths for each in workers],
        "note": _some(each.note for each in workers),
    }
    for name in _SERVER:
        columns[name] = _since(base, map(attrgetter(name), times))
    for name in _WORKER:
        columns[name] = _since(base, map(attrgetter(name), workers))
    text = json.dumps(columns, default=_plain, separators=(",", ":"))
    return zlib.compress(text.encode(), _LEVEL)


def decode_parts(data: bytes, whose: Sequence[Whose]) -> tuple[Part, ...]:
    """Return the parts that `encode_parts` wrote; ``whose`` they are, in the same order.

    Raises:
        ValueError: they are not of so many; TypeError, KeyError: nor parts.
    """
    try:
        columns = json.loads(zlib.decompress(data))
    except zlib.error as error:
        raise ValueError(f"parts that cannot be unpacked: {error}") from error
    if len(columns["seconds"]) != len(whose):
        raise ValueError(f"{len(columns['seconds'])} parts of {len(whose)} asks")
    base, count = columns["base"], len(whose)
    late, left_out = _all(columns["late_by"], count, 0.0), _all(columns["left_out"], count, 0)
    details, notes = _all(columns["detail"], count, ""), _all(columns["note"], count, "")
    untimed, older = set(columns["untimed"]), set(columns["older"])
    server = {name: [_at(base, each) for each in columns[name]] for name in _SERVER}
    worker = {name: [_at(base, each) for each in columns[name]] for name in _WORKER}
    parts = []
    for place, (ask, outcome, reason) in enumerate(whose):
        course = None
        if place not in older:
            said = {name: column[place] for name, column in worker.items()}
            deliveries, deaths = columns["deliveries"][place], columns["deaths"][place]
            course = WorkerTimes(**said, deliveries=deliveries, deaths=deaths, note=notes[place])
        times = None
        if place not in untimed:
            seen = {name: column[place] for name, column in server.items()}
            offset, off_by = columns["offset"][place], columns["error"][place]
            times = TaskTimes(**seen, worker=course, offset_ms=offset, offset_error_ms=off_by)
        names = columns["shapes"][columns["shape"][place]]
        values = [from_json(v) if isinstance(v, dict) else v for v in columns["metrics"][place]]
        parts.append(
            Part(
                ask,
                outcome,
                reason,
                details[place],
                columns["seconds"][place],
                columns["examples"][place],
                columns["bytes"][place],
                dict(zip(names, values, strict=True)),
                left_out[place],
                times,
                late[place],
            )
        )
    return tuple(parts)


def _pairs(
    parts: Sequence[Part], metrics: Sequence[tuple[dict[str, Scalar], int]]
) -> Iterable[tuple[Part, tuple[dict[str, Scalar], int]]]:
    return zip(parts, metrics, strict=True)


def _some(values: Iterable[Any]) -> dict[int, Any]:
    """Return those of the values that are not empty, by place."""
    return {place: value for place, value in enumerate(values) if value}


def _all(some: Mapping[str, Any], count: int, empty: Any) -> list[Any]:
    """Invert `_some`, after JSON."""
    values = [empty] * count
    for place, value in some.items():
        values[int(place)] = value
    return values


def _since(base: int, times: Iterable[int | None]) -> list[int | None]:
    return [None if at is None else at - base for at in times]


def _at(base: int, since: int | None) -> int | None:
    return None if since is None else base + since


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _plain(value: object) -> Any:
    """Return a metric of a type that JSON lacks in one that it has."""
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, np.generic):
        return value.item()
    return repr(value)[:_LONGEST]
