"""A flood of what nobody can use: a sample is laid aside, the others are counted."""

from __future__ import annotations

import pytest

from flmq.messaging.deadletters import DeadLetterLimit
from flmq.testing import ManualClock


def test_so_many_at_once_and_so_many_a_second(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    limit = DeadLetterLimit(clock.now)
    assert [limit.admits(f"user {n % 2}", "q", "r") for n in range(150)] == [True] * 100 + [
        False
    ] * 50
    clock.advance(1.05)
    assert [limit.admits(f"user {n % 2}", "q", f"reason {n}") for n in range(12)] == [True] * 10 + [
        False
    ] * 2
    limit.say()
    assert caplog.records == []  # not yet
    clock.advance(9.0)
    limit.say()
    limit.say()
    (line,) = caplog.records
    assert line.message == (
        "52 more messages that nobody can use came faster than flmq.dead takes them and were "
        "dropped (26 of user 0, 26 of user 1); the last, from q: reason 11"
    )
    assert limit.dropped == 52


def test_who_has_been_quiet_has_no_more_than_the_first_sample() -> None:
    clock = ManualClock()
    limit = DeadLetterLimit(clock.now)
    clock.advance(3600.0)
    assert sum(limit.admits(f"user {n % 5}", "q", "r") for n in range(500)) == 100


def test_what_is_no_flood_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    limit = DeadLetterLimit(clock.now)
    for _ in range(500):
        clock.advance(0.2)
        assert limit.admits("user a", "q", "r")
        limit.say()
    assert caplog.records == []


def test_a_flood_of_one_sender_leaves_room_to_others(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    limit = DeadLetterLimit(clock.now)
    assert sum(limit.admits("user mallory", "q", "r") for _ in range(10_000)) == 50
    assert all(limit.admits("user alice", "q", "r") for _ in range(20))
    clock.advance(10.0)
    limit.say()
    assert "(9950 of user mallory)" in caplog.records[0].message


def test_senders_of_any_number_take_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    limit = DeadLetterLimit(clock.now)
    for number in range(20_000):
        limit.admits(f"key {number}", "q", "r")
    assert len(limit._each) <= 1000
    assert len(limit._dropped) <= 1001
    clock.advance(10.0)
    limit.say()
    assert "18900 of others, " in caplog.records[0].message
