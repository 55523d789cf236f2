"""The waits between tries: growing, jittered, bounded; and the switch for tests."""

from __future__ import annotations

import threading
import time

import pytest

from flmq.common.errors import ResourceLocked
from flmq.testing import fast_retries
from flmq.transport.rabbitmq.tuning import RECEIVE_BYTES, TLS_RECEIVE_BYTES, sendable, tune
from flmq.transport.retry import Backoff, Pace, current_pace, while_locked


@pytest.fixture(autouse=True)
def _fast() -> None:
    """Overrides the fast retries of this folder: here the real figures are looked at."""


def test_waits_grow_with_jitter_up_to_their_bound() -> None:
    series = [[backoff.next() for _ in range(10)] for backoff in (Backoff(), Backoff())]
    assert series[0] != series[1]
    for waits in series:
        for tries, seconds in enumerate(waits):
            assert 0 < seconds <= min(3.0, 0.5 * 2**tries)
    many = [_later(8) for _ in range(50)]
    assert max(many) > 1.5
    assert min(many) < 1.5


def test_a_crowded_broker_is_left_alone_for_longer() -> None:
    many = [_later(8, longest=30.0) for _ in range(50)]
    assert 15 < max(many) <= 30
    assert min(many) < 15


def _later(tries: int, longest: float | None = None) -> float:
    backoff = Backoff()
    return [backoff.next(longest) for _ in range(tries)][-1]


def test_a_success_begins_anew() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.5


def test_the_switch_makes_everything_fast_and_back() -> None:
    assert current_pace() == Pace()
    with fast_retries():
        assert max(_later(8) for _ in range(20)) <= 0.3
        assert current_pace().refused < 1
    assert current_pace() == Pace()


def test_a_lock_is_tried_for_a_while() -> None:
    tries = []

    def locked() -> None:
        tries.append(1)
        raise ResourceLocked("q")

    began = time.monotonic()
    with fast_retries(), pytest.raises(ResourceLocked):
        while_locked(threading.Event())(locked)
    assert len(tries) > 1
    assert time.monotonic() - began >= 0.5


def test_pika_is_tuned() -> None:
    """When pika changes inside, this says so: then find the new place, or drop the tuning."""
    assert tune()
    from pika.adapters.utils.io_services_utils import _AsyncSSLTransport, _AsyncTransportBase
    from pika.frame import Body

    assert _AsyncTransportBase._MAX_RECV_BYTES == RECEIVE_BYTES
    assert _AsyncSSLTransport._MAX_RECV_BYTES == TLS_RECEIVE_BYTES
    assert _AsyncTransportBase._MAX_CONSUME_BYTES >= RECEIVE_BYTES
    view = memoryview(b"not copied")
    assert sendable(view) is view
    assert Body(3, view).marshal() == b"\x03\x00\x03\x00\x00\x00\x0anot copied\xce"
