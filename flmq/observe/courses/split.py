"""Where a round's time went: waiting, transfer, training, aggregation. Pure.

A phase takes as long as the last client that it waited for, so its time is split along the course
of that one: the counted part whose reply came last.

waiting
    from the phase's opening until the worker came to the task: preparing and publishing, its queue,
    the worker's other tasks; and, if somebody did not answer, from the last reply to the closing.
transfer
    reading the model, and sending the reply: from the end of training until the reply was here.
training
    the client's call.
aggregation
    what is left of a round until its checkpoint: entering and adding up replies, the closing, the
    strategy, and the server's own evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flmq.common.times import TaskTimes
from flmq.journal.records import Part, RoundRow
from flmq.round import DIRECT, STREAM, Outcome

__all__ = [
    "Split",
    "phase_about",
    "slowest_in",
    "slowest_of",
    "split_in",
    "split_of_phase",
    "split_of_round",
]

_UNANSWERED = (Outcome.SILENT, Outcome.UNROUTABLE)


@dataclass(frozen=True, slots=True)
class Split:
    """Seconds of a phase or a round; they add up to all of it."""

    waiting: float
    transfer: float
    training: float
    aggregation: float

    @property
    def of_clients(self) -> float:
        """Seconds before the last reply was here, and for which others were waited in vain."""
        return self.waiting + self.transfer + self.training


def split_of_phase(parts: Sequence[Part], opened_ms: int, closed_ms: int) -> Split | None:
    """Return where the time of a closed phase went; None if no counted part's course is known.

    ``opened_ms`` and ``closed_ms`` are Unix ms by the server's clock.
    """
    last = _last(parts)
    if last is None or last.times is None:
        return None
    course = _course(last.times)
    if course is None:
        return None
    begun, started, ended, received = course
    at_the_end = max(0, closed_ms - received)
    in_vain = any(part.outcome in _UNANSWERED for part in parts)
    return Split(
        waiting=(max(0, begun - opened_ms) + at_the_end * in_vain) / 1000,
        transfer=(started - begun + received - ended) / 1000,
        training=(ended - started) / 1000,
        aggregation=at_the_end * (not in_vain) / 1000,
    )


def split_of_round(splits: Iterable[Split], seconds: float) -> Split | None:
    """Return where a round of ``seconds`` went, by the splits of its phases, one after the other.

    None if there are none.
    """
    phases = list(splits)
    if not phases:
        return None
    waiting = sum(each.waiting for each in phases)
    transfer = sum(each.transfer for each in phases)
    training = sum(each.training for each in phases)
    return Split(waiting, transfer, training, max(0.0, seconds - waiting - transfer - training))


def slowest_of(parts: Sequence[Part]) -> tuple[str, float] | None:
    """Return the client whose counted reply came last, and its seconds; None if none counts."""
    last = _last(parts)
    return None if last is None or last.seconds is None else (last.client_id, last.seconds)


def phase_about(parts: Sequence[Part], opened_ms: int, closed_ms: int) -> dict[str, Any]:
    """Return what is kept of a phase, to be read without its parts: see `split_in` and others."""
    split, slowest = split_of_phase(parts, opened_ms, closed_ms), slowest_of(parts)
    return {
        "split": None if split is None else asdict(split),
        "slowest": None if slowest is None else list(slowest),
    }


def split_in(row: RoundRow) -> Split | None:
    """Return where the time of a round went, as its journal has it; None if it does not say.

    Asks of a run without rounds overlap, and have no such split.
    """
    if row.seconds is None or any(STREAM <= phase.call < DIRECT for phase in row.phases):
        return None
    kept: list[Any] = [phase.about.get("split") for phase in row.phases if phase.call < STREAM]
    return None if None in kept else split_of_round(map(_read, kept), row.seconds)


def slowest_in(row: RoundRow) -> tuple[str, float] | None:
    """Return the client that took longest in a phase of a round, and its seconds; None: unknown."""
    kept: list[Any] = [phase.about.get("slowest") for phase in row.phases]
    found = max(filter(None, kept), key=lambda each: float(each[1]), default=None)
    return None if found is None else (str(found[0]), float(found[1]))


def _read(kept: Mapping[str, float]) -> Split:
    return Split(**{name: float(value) for name, value in kept.items()})


def _last(parts: Sequence[Part]) -> Part | None:
    """Return the counted part whose reply came last."""
    counted = [part for part in parts if part.outcome is Outcome.ACCEPTED]
    return max(counted, key=lambda part: (part.seconds or 0.0, part.ask), default=None)


def _course(times: TaskTimes) -> tuple[int, int, int, int] | None:
    """Return when a task was begun, trained, done and received; None if that is not known."""
    begun = times.taken_ms if times.begun_ms is None else times.begun_ms
    started, ended, received = (
        times.training_started_ms,
        times.training_ended_ms,
        times.received_ms,
    )
    if begun is None or ended is None or received is None:
        return None
    return begun, begun if started is None else started, ended, received
