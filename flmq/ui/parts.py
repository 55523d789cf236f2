"""Parts of a phase, as the API gives them: who was asked, and how long each took. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "Json",
    "ask_of",
    "asks_of",
    "befell",
    "begin_of",
    "counted_of",
    "seconds_of",
    "span_of",
    "touches",
]

Json = Mapping[str, Any]

_ASIDE = ("duplicate", "late")
"""Outcomes of further replies, not of asks."""


def seconds_of(phase: Json) -> dict[str, float]:
    """Return how long after the phase's opening each counted reply was here, by ask.

    Asks of a stream are opened one by one, as they are published.
    """
    opened = None if phase.get("streamed") else phase.get("opened_ms")
    took = {}
    for part in counted_of(phase):
        begun = part.get("published_ms") if opened is None else opened
        if begun is not None and part.get("received_ms") is not None:
            took[ask_of(part)] = max(0.0, (part["received_ms"] - begun) / 1000)
        elif part.get("seconds") is not None:
            took[ask_of(part)] = float(part["seconds"])
    return took


def asks_of(phase: Json) -> list[Json]:
    """Return a part an ask, without further replies to it."""
    parts = phase.get("parts") or ()
    asked = [part for part in parts if part.get("outcome") not in _ASIDE]
    known = {ask_of(part) for part in asked}
    alone = [p for p in parts if p.get("outcome") == "late" and ask_of(p) not in known]
    return asked + alone


def counted_of(phase: Json) -> list[Json]:
    """Return the parts that count."""
    return [part for part in phase.get("parts") or () if part.get("outcome") == "accepted"]


def span_of(part: Json, begin: str, end: str) -> float | None:
    """Return the seconds between two times of a part, by their names; None: one is not known."""
    at, until = _at(part, begin), _at(part, end)
    return None if at is None or until is None else max(0.0, (until - at) / 1000)


def _at(part: Json, name: str) -> Any:
    """Return a time of a part; older records do not tell when a worker came to a task."""
    at = part.get(name)
    return part.get("taken_ms") if at is None and name == "begun_ms" else at


def touches(away: Sequence[int | None], phase: Json) -> bool:
    """Return whether a client was away while a phase was open."""
    begin, end = away
    opened, closed = phase.get("opened_ms"), phase.get("closed_ms")
    before = closed is None or begin is None or begin <= closed
    return before and (end is None or opened is None or end >= opened)


def begin_of(away: Sequence[int | None]) -> int:
    """Return since when a client was away, in Unix ms; 0: not known."""
    return away[0] or 0


def ask_of(part: Json) -> str:
    """Return the name of the ask that a part is of."""
    return str(part.get("ask") or part.get("client"))


def befell(mark: Json, head: Json) -> bool:
    """Return whether something befell the server within a round or a phase."""
    opened, closed = head.get("opened_ms"), head.get("closed_ms")
    at = mark["at_ms"]
    until = at if mark.get("until_ms") is None else mark["until_ms"]
    return opened is not None and until >= opened and (closed is None or at <= closed)
