"""Standing by: one waits while another has it, says so once, and is stopped by who waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flmq.common.errors import JobInUse, ResourceLocked
from flmq.transport.standby import TRY_EVERY, stand_by


def taken_after(tries: int) -> Callable[[], str]:
    left = [tries]

    def take() -> str:
        if left[0]:
            left[0] -= 1
            raise ResourceLocked("q")
        return "mine"

    return take


def test_what_nobody_has_is_ours_at_once() -> None:
    waits: list[float] = []
    said: list[ResourceLocked] = []
    assert stand_by(taken_after(0), said.append, waits.append) == "mine"
    assert (waits, said) == ([], [])


def test_it_is_tried_until_it_is_free_and_said_once() -> None:
    waits: list[float] = []
    said: list[ResourceLocked] = []
    assert stand_by(taken_after(3), said.append, waits.append) == "mine"
    assert waits == [TRY_EVERY] * 3
    assert [error.queue for error in said] == ["q"]


def test_who_does_not_stand_by_gives_up_at_once() -> None:
    def give_up(error: ResourceLocked) -> None:
        raise JobInUse("job") from error

    waits: list[float] = []
    with pytest.raises(JobInUse):
        stand_by(taken_after(1), give_up, waits.append)
    assert waits == []


def test_a_wait_that_raises_stops_it() -> None:
    def wait(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stand_by(taken_after(1), lambda error: None, wait)
