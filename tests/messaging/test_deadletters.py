"""A flood of what nobody can use: a sample is laid aside, the others are counted."""

from __future__ import annotations

import pytest

from flmq.messaging.deadletters import DeadLetterLimit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_so_many_at_once_and_so_many_a_second(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limit = DeadLetterLimit(clock)
    assert [limit.admits("q", "r") for _ in range(150)] == [True] * 100 + [False] * 50
    clock.now += 1.05
    assert [limit.admits("q", f"reason {n}") for n in range(12)] == [True] * 10 + [False] * 2
    limit.say()
    assert caplog.records == []  # not yet
    clock.now += 9.0
    limit.say()
    limit.say()
    (line,) = caplog.records
    assert line.message == (
        "52 more messages that nobody can use came faster than flmq.dead takes them and were "
        "dropped; the last, from q: reason 11"
    )
    assert limit.dropped == 52


def test_who_has_been_quiet_has_no_more_than_the_first_sample() -> None:
    clock = Clock()
    limit = DeadLetterLimit(clock)
    clock.now += 3600.0
    assert sum(limit.admits("q", "r") for _ in range(500)) == 100


def test_what_is_no_flood_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limit = DeadLetterLimit(clock)
    for _ in range(500):
        clock.now += 0.2
        assert limit.admits("q", "r")
        limit.say()
    assert caplog.records == []
