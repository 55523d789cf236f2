"""How far a client's clock is ahead, from messages whose delays nobody knows."""

from __future__ import annotations

import random

import pytest

from flmq.common.times import WorkerTimes
from flmq.server.job.clock_offsets import ClockOffset, ClockOffsets

HOUR = 3_600_000
NOW = 1_800_000_000_000


def exchange(
    offsets: ClockOffsets, at: int, ahead: int, there: int = 20, back: int = 30
) -> tuple[float, float] | None:
    """A task of a client whose clock is ``ahead``, with these delays in ms."""
    taken = at + there + ahead
    times = WorkerTimes(taken, taken, taken, taken + 500, taken + 500)
    return offsets.replied("a", at, times, at + there + 500 + back)


@pytest.mark.parametrize("ahead", [-26 * HOUR, -3000, 7 * HOUR])
def test_the_interval_holds_the_offset_and_narrows(ahead: int) -> None:
    rng, offsets, errors = random.Random(ahead), ClockOffsets(), []
    for number in range(50):
        there, back = rng.randrange(1, 2000), rng.randrange(1, 2000)
        estimate = exchange(offsets, NOW + 5000 * number, ahead, there, back)
        assert estimate is not None
        offset, error = estimate
        assert abs(offset - ahead) <= error
        errors.append(error)
    assert errors[-1] < errors[0]
    assert errors[-1] < 200


def test_clocks_that_may_well_agree_are_taken_to() -> None:
    assert exchange(ClockOffsets(), NOW, 0, 20, 400) == (0.0, 401.0)
    estimate = exchange(ClockOffsets(), NOW, 0, 20, 4000)
    assert estimate is not None
    assert estimate[0] != 0.0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_clock_that_is_set_starts_anew(step: int) -> None:
    offsets = ClockOffsets()
    exchange(offsets, NOW, 0)
    estimate = exchange(offsets, NOW + 5000, step)
    assert estimate is not None
    assert abs(estimate[0] - step) <= estimate[1] < 30
    assert offsets._offsets["a"].steps == 1


def test_a_clock_that_is_set_while_it_trains_is_not_known_before_the_next_task() -> None:
    offsets = ClockOffsets()
    times = WorkerTimes(NOW + 10, NOW + 10, NOW + 10, NOW + 500 + HOUR, NOW + 500 + HOUR)
    assert offsets.replied("a", NOW, times, NOW + 550) is None
    estimate = exchange(offsets, NOW + 5000, HOUR)
    assert estimate is not None
    assert abs(estimate[0] - HOUR) <= estimate[1]


def test_presence_alone_says_what_is_the_least() -> None:
    offset = ClockOffset()
    offset.observe(NOW, low=-30.0)
    assert offset.estimate() is None
    offset.observe(NOW + 1, high=40.0)
    assert offset.estimate() == (0.0, 41.0)


def test_presence_narrows_what_tasks_say() -> None:
    offsets = ClockOffsets()
    wide = exchange(offsets, NOW, HOUR, 20, 3000)
    offsets.heard("a", NOW + 9000 + HOUR, NOW + 9003)
    narrow = exchange(offsets, NOW + 10_000, HOUR, 20, 3000)
    assert wide is not None
    assert narrow is not None
    assert narrow[1] < 20 < wide[1]


def test_an_old_bound_is_widened_by_what_clocks_drift() -> None:
    offset = ClockOffset()
    offset.observe(NOW, low=-2.0, high=2.0)
    day = 24 * HOUR
    offset.observe(NOW + day, low=2500.0, high=4000.0)  # 34 parts in a million ahead
    assert offset.steps == 0
    offset.observe(NOW + day, low=20_000.0, high=21_000.0)
    assert offset.steps == 1


def test_a_worker_that_says_nothing_has_no_offset() -> None:
    offsets = ClockOffsets()
    assert offsets.replied("a", NOW, None, NOW + 50) is None
    assert offsets.replied("a", NOW, WorkerTimes(), NOW + 50) is None
    offsets.heard("a", 0, NOW)
    assert offsets._offsets["a"] == ClockOffset()
