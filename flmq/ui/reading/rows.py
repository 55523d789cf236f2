"""Rounds, phases and parts as JSON for the page. Pure.

Times are Unix milliseconds by the server's clock, durations seconds; null: not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flmq.common.jsonvalues import to_json
from flmq.common.phase import Phase
from flmq.common.times import TaskTimes
from flmq.journal.parts import Part
from flmq.journal.records import LateReply, PhaseRow, RoundRow
from flmq.observe.courses.split import slowest_in, split_in
from flmq.observe.events import RoundCounts
from flmq.observe.past_rounds import closed_event
from flmq.round import client_of
from flmq.round.keys import DIRECT, STREAM, ask_name

__all__ = [
    "Away",
    "brief_json",
    "part_json",
    "parts_json",
    "phase_parts",
    "phases_json",
    "plain",
    "round_json",
]

Away = Mapping[str, Sequence[tuple[int, int | None]]]
"""By client, from when to when it was not connected."""


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return scalars by name as any JSON parser takes them: what is no number becomes text."""
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    value = to_json(value)
    if isinstance(value, dict):
        return value.get("$float") or f"{len(str(value.get('$base64', '')))} characters of base64"
    return value


def round_json(row: RoundRow) -> dict[str, Any]:
    """Return a round: done, or open with what came of it so far."""
    closed = closed_event(row, 0)
    opened = [phase.opened_unix_ms for phase in row.phases if phase.opened_unix_ms]
    ends = [phase.closed_unix_ms for phase in row.phases]
    over = [end for end in ends if end is not None]
    slowest, split = slowest_in(row), split_in(row)
    return {
        "round": row.server_round,
        "done": row.done,
        "opened_ms": min(opened, default=None),
        "closed_ms": max(over) if row.done and over and None not in ends else None,
        "seconds": row.seconds,
        "split": None if split is None else asdict(split),
        "fit": _counts(row, Phase.FIT, closed.fit),
        "evaluate": _counts(row, Phase.EVALUATE, closed.evaluate),
        "loss": _plain(row.loss),
        "metrics": plain(row.metrics),
        "fit_metrics": plain(closed.fit_metrics),
        "evaluate_loss": _plain(closed.evaluate_loss),
        "evaluate_metrics": plain(closed.evaluate_metrics),
        "bytes_down": closed.bytes_down,
        "bytes_up": closed.bytes_up,
        "digest": closed.digest or None,
        "note": closed.note,
        "changed": closed.changed,
        "closed": {each.phase.value: each.reason for each in row.phases if not each.open},
        "open_phase": next((each.phase.value for each in row.phases if each.open), None),
        "slowest": None if slowest is None else {"client": slowest[0], "seconds": slowest[1]},
    }


def _counts(row: RoundRow, phase: Phase, counts: RoundCounts) -> dict[str, int]:
    """Return the counts of a phase; nobody is silent while it is open."""
    said = asdict(counts)
    answered = sum(said[word] for word in ("accepted", "failed", "rejected", "unroutable"))
    if any(each.open for each in row.phases if each.phase is phase):
        said["silent"] = 0
        said["open"] = max(0, counts.asked - answered)
    return said


def phases_json(row: RoundRow, away: Away) -> list[dict[str, Any]]:
    """Return a round's phases, in order.

    A strategy's direct calls are numbered from 1, of each kind of its own. The asks of a stream are
    one phase, which closes with the last of them.
    """
    calls: Counter[Phase] = Counter()
    phases = []
    for phase in row.phases:
        told = _phase_json(phase, away)
        if phase.call >= DIRECT:
            calls[phase.phase] += 1
            told["call"] = calls[phase.phase]
        elif phase.call >= STREAM:
            told |= _streamed(told, row.done)
        phases.append(told)
    return phases


def _streamed(phase: Mapping[str, Any], done: bool) -> dict[str, Any]:
    """Return what differs of a phase whose asks were opened, and settled, one by one."""
    asked: Counter[str] = Counter()
    parts = []
    for part in phase["parts"]:
        ask = part["ask"]
        if part["late_by"] is None:
            ask = ask_name(ask, asked[ask])
            asked[part["ask"]] += 1
        parts.append({**part, "ask": ask})
    closed = phase["closed_ms"]
    if done and closed is None and all(part["outcome"] != "open" for part in parts):
        ends = [part["counted_ms"] or part["received_ms"] for part in parts]
        closed = max((end for end in ends if end is not None), default=phase["opened_ms"])
    return {"call": 0, "streamed": True, "parts": parts, "closed_ms": closed}


def _phase_json(phase: PhaseRow, away: Away) -> dict[str, Any]:
    """Return a phase with each client's part in it, and those of replies that came late."""
    opened, timeout = phase.opened_unix_ms or None, phase.timeout
    closed = phase.closed_unix_ms
    if closed is None and not phase.open and opened is not None:
        closed = opened + round(phase.seconds * 1000)
    return {
        "phase": phase.phase.value,
        "call": phase.call,
        "streamed": False,
        "opened_ms": opened,
        "closed_ms": closed,
        "deadline_ms": None if timeout is None or not opened else opened + round(timeout * 1000),
        "reason": phase.reason,
        "asked": phase.asked,
        "counts": {word.value: count for word, count in Counter(phase.counts).items()},
        "parts": parts_json(phase, away),
    }


def phase_parts(phase: PhaseRow) -> tuple[Part, ...]:
    """Return the parts of a phase; where an older flmq kept none, what became of each ask."""
    return phase.parts or tuple(
        Part(each.client_id, each.outcome, each.reason) for each in phase.outcomes
    )


def parts_json(phase: PhaseRow, away: Away, client: str | None = None) -> list[dict[str, Any]]:
    """Return the parts of a phase, and of replies that came late: all clients', or one's."""
    return [
        *(
            part_json(each, away)
            for each in phase_parts(phase)
            if client is None or each.client_id == client
        ),
        *(
            _late_json(each, away)
            for each in phase.late
            if client is None or client_of(each.client_id) == client
        ),
    ]


def brief_json(part: Part) -> dict[str, Any]:
    """Return what the list of clients adds up of a part."""
    times = part.times or TaskTimes()
    return {
        "client": part.client_id,
        "outcome": "open" if part.outcome is None else part.outcome.value,
        "reason": part.reason,
        "seconds": part.seconds,
        "offset_ms": times.offset_ms,
        "offset_error_ms": times.offset_error_ms,
    }


def part_json(part: Part, away: Away) -> dict[str, Any]:
    """Return what one client did in a phase."""
    times = part.times or TaskTimes()
    client, course, note = client_of(part.ask), times.course(), times.clock_note
    return {
        "client": client,
        "ask": part.ask,
        "outcome": "open" if part.outcome is None else part.outcome.value,
        "reason": part.reason,
        "detail": part.detail,
        "seconds": part.seconds,
        "published_ms": times.published_ms,
        "taken_ms": course["taken"],
        "begun_ms": course["begun"],
        "training_started_ms": course["training_started"],
        "training_ended_ms": course["training_ended"],
        "upload_started_ms": course["upload_started"],
        "received_ms": times.received_ms,
        "counted_ms": times.counted_ms,
        "deliveries": times.deliveries,
        "deaths": times.deaths,
        "examples": part.num_examples,
        "bytes_up": part.bytes,
        "metrics": plain(part.metrics),
        "metrics_left_out": part.metrics_left_out,
        "offset_ms": times.offset_ms,
        "offset_error_ms": times.offset_error_ms,
        "late_by": part.late_by or None,
        "away": _within(away.get(client, ()), times),
        "clock": not note,
        "clock_note": note,
    }


def _late_json(late: LateReply, away: Away) -> dict[str, Any]:
    part = late.part or Part(late.client_id, late.outcome, late.note)
    told = part_json(part, away)
    into = f"counts in round {late.into}" if late.into is not None else ""
    return {
        **told,
        "outcome": late.outcome.value,
        "reason": late.note or part.reason or into,
        "late_by": late.seconds or None,
        "times": late.times,
        "into": late.into,
    }


def _within(
    spans: Iterable[tuple[int, int | None]], times: TaskTimes
) -> list[tuple[int, int | None]]:
    """Return the spans that touch a task, from its publishing until it counted."""
    begin, end = times.published_ms, times.counted_ms
    return [
        (since, until)
        for since, until in spans
        if (end is None or since <= end) and (begin is None or until is None or until >= begin)
    ]
