"""A worker's times by the server's clock: between publishing and receiving, or not at all."""

from __future__ import annotations

from flmq.common.times import TaskTimes, WorkerTimes

HOUR = 3_600_000
WORKER = WorkerTimes(HOUR + 10, HOUR + 20, HOUR + 30, HOUR + 40, HOUR + 50, 2, 1)


def test_a_clock_that_is_hours_ahead_is_set_right() -> None:
    times = TaskTimes(5, 60, 70, WORKER, HOUR, 2.0)
    assert (times.taken_ms, times.begun_ms, times.training_started_ms) == (10, 20, 30)
    assert (times.training_ended_ms, times.upload_started_ms) == (40, 50)
    assert (times.deliveries, times.deaths) == (2, 1)
    assert times.clock


def test_an_error_of_the_offset_moves_nothing_before_its_cause() -> None:
    early = TaskTimes(5, 60, 70, WORKER, HOUR + 20, 20.0)
    assert (early.taken_ms, early.upload_started_ms) == (5, 30)
    late = TaskTimes(5, 60, 70, WORKER, HOUR - 20, 20.0)
    assert (late.taken_ms, late.upload_started_ms) == (30, 60)


def test_what_the_offset_cannot_explain_is_not_drawn() -> None:
    stepped = TaskTimes(5, 60, 70, WORKER, 0.0, 20.0)
    assert not stepped.clock
    assert "after its reply was here" in stepped.clock_note
    assert stepped.taken_ms is None
    unknown = TaskTimes(5, 60, 70, WORKER)
    assert (unknown.clock, unknown.taken_ms) == (False, None)


def test_an_older_worker_says_nothing_of_it() -> None:
    times = TaskTimes(5, 60, 70)
    assert times.clock
    assert (times.taken_ms, times.deliveries) == (None, None)


def test_what_was_not_believed_is_said_and_the_rest_is_drawn() -> None:
    worker = WorkerTimes(HOUR + 10, note="training_ended is before training_started")
    times = TaskTimes(5, 60, 70, worker, HOUR, 2.0)
    assert (times.clock, times.taken_ms) == (False, 10)
