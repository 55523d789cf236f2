"""A client whose clock is wrong neither gives up tasks that are in time nor waits for ever."""

from __future__ import annotations

import time

import pytest

from flmq.client.tasks.clocks import server_clock
from flmq.common.phase import Phase
from flmq.common.typing import GetPropertiesIns
from flmq.wire import Task


def a_task(deadline: float | None, timeout: float | None) -> Task:
    return Task(
        "t",
        "job",
        1,
        Phase.GET_PROPERTIES,
        "a",
        1,
        b"",
        GetPropertiesIns({}),
        deadline_unix_ms=None if deadline is None else round(deadline * 1000),
        timeout_seconds=timeout,
    )


def test_a_clock_that_is_an_hour_ahead_does_not_expire_tasks() -> None:
    servers_now = 1e9
    now = server_clock(a_task(servers_now + 60, 60), 7.0, lambda: 7.0, lambda: servers_now + 3600)
    assert now() == servers_now


def test_a_task_that_waited_here_beyond_its_timeout_has_expired() -> None:
    servers_now = 1e9 - 100
    now = server_clock(a_task(servers_now + 60, 60), 7.0, lambda: 68.0, lambda: 1e9)
    assert now() == servers_now + 61


@pytest.mark.parametrize(("deadline", "timeout"), [(None, None), (5.0, None)])
def test_without_a_timeout_there_is_only_this_clock(
    deadline: float | None, timeout: float | None
) -> None:
    assert server_clock(a_task(deadline, timeout), time.monotonic()) is time.time


def test_what_an_earlier_process_took_is_held_against_this_clock() -> None:
    assert server_clock(a_task(5.0, 5.0), None) is time.time
