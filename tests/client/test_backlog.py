"""What waits for a thread of a worker, and what is being done."""

from __future__ import annotations

import threading

from flmq.client.backlog import Backlog
from flmq.client.hands import Hands
from flmq.wire import Task
from tests.client.test_tasks import task


def test_a_task_is_known_until_it_is_done() -> None:
    backlog = Backlog()
    backlog.put(task("t1"))
    assert "t1" in backlog
    taken = backlog.take()
    assert taken == task("t1")
    assert "t1" in backlog
    backlog.done(taken)
    assert "t1" not in backlog


def test_a_deadline_is_held_against_when_the_task_came() -> None:
    """Ours is an hour ahead: the server's clock was at the phase's opening when the task came."""
    now = [50.0]
    backlog = Backlog(lambda: now[0], lambda: 1e9 + 3600)
    timed = task("t1", deadline_unix_ms=int((1e9 + 60) * 1000), timeout_seconds=60.0)
    backlog.put(timed, backlog.clock())
    backlog.put(task("t2"))
    now[0] += 7
    assert backlog.server_clock(timed)() == 1e9 + 7
    assert backlog.server_clock(task("t2"))() == 1e9 + 3600


def test_whoever_waits_for_a_task_is_let_go_at_once_and_what_waits_is_not_begun() -> None:
    backlog = Backlog()
    hands = Hands(3, backlog)
    taken: list[Task] = []

    def work() -> None:
        while (each := backlog.take()) is not None:
            taken.append(each)

    running = threading.Thread(target=hands.run, args=(work,))
    running.start()
    hands.stop()
    hands.stop()
    running.join(10)
    assert not running.is_alive()
    backlog.put(task("t1"))
    assert backlog.take() is None
    assert taken == []
