"""Where a round's time went, along the course of the client that it waited for."""

from __future__ import annotations

import pytest

from flmq.common.phase import Phase
from flmq.common.times import TaskTimes, WorkerTimes
from flmq.journal.records import Part, PhaseRow, RoundRow
from flmq.observe.courses.split import (
    Split,
    phase_about,
    slowest_in,
    slowest_of,
    split_in,
    split_of_phase,
    split_of_round,
)
from flmq.round import STREAM, Outcome

HOUR = 3_600_000


def part(ask: str, begun: int, started: int, ended: int, received: int) -> Part:
    """The part of a client whose clock is an hour ahead."""
    worker = WorkerTimes(HOUR + 5, HOUR + begun, HOUR + started, HOUR + ended, HOUR + ended)
    times = TaskTimes(2, received, received + 1, worker, HOUR, 1.0)
    return Part(ask, Outcome.ACCEPTED, seconds=received / 1000, times=times)


PARTS = [part("quick", 10, 20, 30, 40), part("slow", 1000, 1500, 8500, 9500)]


def test_a_phase_is_split_along_the_counted_part_that_came_last() -> None:
    assert split_of_phase(PARTS, 0, 10_000) == Split(1.0, 1.5, 7.0, 0.5)
    assert slowest_of(PARTS) == ("slow", 9.5)


def test_who_did_not_answer_was_waited_for() -> None:
    silent = Part("silent", Outcome.SILENT, "deadline")
    assert split_of_phase([*PARTS, silent], 0, 60_000) == Split(51.5, 1.5, 7.0, 0.0)


def test_one_that_failed_is_not_counted() -> None:
    failed = Part("failed", Outcome.FAILED, seconds=9.9)
    assert split_of_phase([*PARTS, failed], 0, 10_000) == Split(1.0, 1.5, 7.0, 0.5)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [Part("a", Outcome.SILENT)],
        [Part("a", Outcome.ACCEPTED, seconds=1.0)],
        [Part("a", Outcome.ACCEPTED, seconds=1.0, times=TaskTimes(1, 2, 3))],
        [Part("a", Outcome.ACCEPTED, seconds=1.0, times=TaskTimes(1, 2, 3, WorkerTimes(1)))],
    ],
)
def test_what_is_not_known_is_not_split(parts: list[Part]) -> None:
    assert split_of_phase(parts, 0, 10_000) is None
    assert slowest_of([]) is None


def test_a_round_adds_up_to_its_seconds() -> None:
    split = split_of_round([Split(1.0, 1.5, 7.0, 0.5), Split(0.5, 0.5, 1.0, 0.25)], 14.0)
    assert split == Split(1.5, 2.0, 8.0, 2.5)
    assert split_of_round([], 14.0) is None


def row(*abouts: dict[str, object], call: int = 0) -> RoundRow:
    phases = tuple(
        PhaseRow(Phase.FIT, call, 1, 0, False, "", (), 1.0, 0, 0, (), about=about)
        for about in abouts
    )
    return RoundRow(3, phases, True, None, {}, 14.0, {})


def test_a_round_is_split_by_what_its_journal_keeps() -> None:
    about = phase_about(PARTS, 0, 10_000)
    quick = phase_about(PARTS[:1], 0, 50)
    assert split_in(row(about)) == Split(1.0, 1.5, 7.0, 4.5)
    both = split_in(row(about, quick))
    assert both is not None
    assert both.of_clients + both.aggregation == pytest.approx(14.0)
    assert slowest_in(row(quick, about)) == ("slow", 9.5)


def test_a_round_of_an_older_flmq_or_without_rounds_is_not_split() -> None:
    about = phase_about(PARTS, 0, 10_000)
    assert split_in(row(about, {})) is None
    assert split_in(row(about, call=STREAM)) is None
    assert slowest_in(row({})) is None
