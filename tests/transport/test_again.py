"""When a connection, and a consumer, try again: by a clock in the test's hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    BrokerRefusal,
    BrokerUnavailable,
    ResourceLocked,
    TooManyConnections,
)
from flmq.transport.rabbitmq.reconnection import Reconnection
from flmq.transport.rabbitmq.resubscription import Resubscription
from flmq.transport.rabbitmq.subscription import Subscription
from flmq.transport.rabbitmq.together import Together
from flmq.transport.retry import Pace

PACE = Pace()


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Loop:
    """pika's, as far as it is used: timers."""

    def __init__(self) -> None:
        self.timers: dict[object, tuple[float, Callable[[], None]]] = {}

    def call_later(self, seconds: float, action: Callable[[], None]) -> object:
        handle = object()
        self.timers[handle] = (seconds, action)
        return handle

    def remove_timeout(self, handle: object) -> None:
        del self.timers[handle]

    def fire(self) -> None:
        timers, self.timers = self.timers, {}
        for _, action in timers.values():
            action()


class Tried:
    """A connection of which it is counted how often it tried."""

    def __init__(self, together: Together, clock: Time) -> None:
        self.loop: Any = Loop()
        self.times = 0
        self.again = Reconnection(self.loop, lambda act: act(), self._try, together, clock)

    def _try(self) -> None:
        self.times += 1


def longest(again: Reconnection, problem: BrokerError) -> float:
    """Of many series of waits, the longest first one."""
    seconds = []
    for _ in range(50):
        again._backoff.reset()
        seconds.append(again.again(problem))
        again.end()
    return max(seconds)


def test_one_of_several_connections_tries_and_the_others_follow() -> None:
    together, clock = Together(), Time()
    first, second = Tried(together, clock), Tried(together, clock)
    for each in (first, second):
        each.again.again(BrokerUnavailable("gone"))
    for each in (first, second):
        each.loop.fire()
    assert (first.times, second.times) == (1, 0)
    first.again.up()
    assert (first.times, second.times) == (1, 1)
    assert second.loop.timers == {}


def test_a_connection_that_is_ended_tries_no_more() -> None:
    tried = Tried(Together(), Time())
    tried.again.again(BrokerUnavailable("gone"))
    tried.again.end()
    tried.again.follow()
    assert tried.loop.timers == {}
    assert tried.times == 0


def test_what_was_refused_waits_as_long_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flmq.transport.retry._pace", PACE)
    again = Tried(Together(), Time()).again
    assert [again.again(BrokerAccessRefused("no")) for _ in range(3)] == [PACE.refused] * 3
    assert longest(again, TooManyConnections("full")) <= PACE.crowded


@pytest.mark.parametrize(("held", "anew"), [(PACE.healthy + 1, True), (1.0, False)])
def test_the_waits_begin_anew_after_a_connection_that_held(
    monkeypatch: pytest.MonkeyPatch, held: float, anew: bool
) -> None:
    monkeypatch.setattr("flmq.transport.retry._pace", PACE)
    clock = Time()
    again = Tried(Together(), clock).again
    for _ in range(6):
        again.again(BrokerUnavailable("gone"))
        again.end()
    again.up()
    clock.now += held
    again.again(BrokerUnavailable("gone"))
    assert (again._backoff._state.attempt_number == 2) is anew


def refusal(code: int) -> BrokerRefusal:
    refused = BrokerRefusal("no")
    refused.__cause__ = ChannelClosedByBroker(code, "no")
    return refused


def resubscription(clock: Time, *, ours: bool = True) -> Resubscription:
    wanted = Subscription(("q",), 1, 0, True, None, lock_patience=60.0, declared=lambda _: ours)
    return Resubscription(wanted, clock)


def test_a_lock_is_waited_for_shortly_at_first_and_patiently_once_it_was_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flmq.transport.retry._pace", PACE)
    clock = Time()
    again = resubscription(clock)
    locked = ResourceLocked("q")
    assert not again.is_final(locked)
    clock.now += PACE.lock + 0.1
    assert again.is_final(locked)
    again.succeeded()
    clock.now += 1000
    again.lost()
    clock.now += 59
    assert not again.is_final(locked)
    clock.now += 2
    assert again.is_final(locked)
    assert again.wait(locked) <= 0.5


def test_a_queue_that_is_gone_is_declared_again_if_it_is_ours() -> None:
    assert resubscription(Time(), ours=False).is_final(refusal(404))
    again = resubscription(Time())
    assert not again.is_final(refusal(404))
    again.not_restored = refusal(404)
    assert not again.is_final(refusal(404))
    again.not_restored = refusal(406)
    assert again.is_final(refusal(404))


def test_what_was_never_allowed_is_final_and_what_was_taken_away_is_not() -> None:
    again = resubscription(Time())
    assert again.is_final(BrokerAccessRefused("no"))
    again.succeeded()
    again.lost()
    assert not again.is_final(BrokerAccessRefused("no"))
    assert again.is_final(refusal(406))
    assert not again.is_final(BrokerUnavailable("gone"))
