"""What is said again of a client is told from what is new."""

from __future__ import annotations

from flmq.server.presence.order import PresenceOrder
from flmq.wire import Presence, PresenceKind


def _said(instance: str, at: int, client_id: str = "a") -> Presence:
    return Presence(PresenceKind.HEARTBEAT, client_id, "main", instance, sent_unix_ms=at)


def test_what_was_said_before_is_no_news() -> None:
    order = PresenceOrder()
    assert order.problem(_said("one", 5), answers=True) == ""
    assert "said it before" in order.problem(_said("one", 5), answers=True)
    assert "said it before" in order.problem(_said("one", 4), answers=False)
    assert order.problem(_said("one", 6), answers=False) == ""
    assert order.problem(_said("one", 5, "b"), answers=False) == ""


def test_a_process_that_was_followed_by_another_does_not_come_back() -> None:
    order = PresenceOrder()
    order.problem(_said("one", 5), answers=True)
    # Another clock may be behind: the greeting that it answers shows that it is new.
    assert order.problem(_said("two", 1), answers=True) == ""
    assert "followed by another" in order.problem(_said("one", 9), answers=True)
    assert order.problem(_said("two", 2), answers=False) == ""


def test_who_has_not_answered_a_greeting_takes_nobodys_place() -> None:
    order = PresenceOrder()
    order.problem(_said("one", 5), answers=True)
    assert order.problem(_said("older", 1), answers=False) == ""  # it is greeted, and never answers
    assert order.problem(_said("one", 6), answers=False) == ""


def test_of_many_processes_the_last_ones_are_remembered() -> None:
    order = PresenceOrder()
    for number in range(1000):
        assert order.problem(_said(f"process-{number}", number), answers=True) == ""
    assert "followed by another" in order.problem(_said("process-990", 5000), answers=True)
