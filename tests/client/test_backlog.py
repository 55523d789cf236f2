"""What waits for a thread of a worker, and what is being done."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from flmq.client.serving.backlog import Backlog
from flmq.client.serving.hands import Hands
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


def test_a_client_has_one_task_at_a_time_and_holds_up_nobody() -> None:
    backlog = Backlog()
    backlog.put(task("a1", client_id="a"))
    backlog.put(task("a2", client_id="a"))
    backlog.put(task("a3", client_id="a"))
    backlog.put(task("b1", client_id="b"))
    first, other = backlog.take(), backlog.take()
    assert first is not None
    assert other is not None
    assert [first.task_id, other.task_id] == ["a1", "b1"]
    assert "a2" in backlog
    backlog.done(other)
    backlog.done(first)
    for expected in ("a2", "a3"):
        taken = backlog.take()
        assert taken is not None
        assert taken.task_id == expected
        backlog.done(taken)


def test_a_client_that_was_sent_away_rests_without_a_thread() -> None:
    now = [0.0]
    backlog = Backlog(lambda: now[0])
    backlog.put(task("a1", client_id="a"))
    backlog.put(task("a2", client_id="a"))
    taken = backlog.take()
    assert taken is not None
    backlog.done(taken, rest=60.0)
    backlog.put(task("a3", client_id="a"))
    backlog.put(task("b1", client_id="b"))
    order = []
    for _ in range(3):
        taken = backlog.take()
        assert taken is not None
        order.append(taken.task_id)
        backlog.done(taken)
        now[0] += 61.0
    assert order == ["b1", "a2", "a3"]


def test_a_rest_ends_though_whoever_began_it_is_at_work() -> None:
    backlog = Backlog()
    backlog.put(task("a1", client_id="a"))
    first = backlog.take()
    assert first is not None
    backlog.put(task("a2", client_id="a"))
    taken: SimpleQueue[Task | None] = SimpleQueue()
    waiting = threading.Thread(target=lambda: taken.put(backlog.take()), daemon=True)
    waiting.start()
    backlog.done(first, rest=0.2)
    backlog.put(task("b1", client_id="b"))
    backlog.put(task("c1", client_id="c"))
    assert backlog.take() is not None  # and the other one has the other of them, at once
    assert taken.get(timeout=10) is not None
    threading.Thread(target=lambda: taken.put(backlog.take()), daemon=True).start()
    last = taken.get(timeout=10)
    assert last is not None
    assert last.task_id == "a2"


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


def test_at_a_drain_what_waits_behind_a_clients_task_is_come_to_and_nobody_rests() -> None:
    """Finished replies among them are sent, which a thread that had ended would not do."""
    backlog = Backlog()
    for task_id in ("a1", "a2", "b1", "b2"):
        backlog.put(task(task_id, client_id=task_id[0]))
    first, second = backlog.take(), backlog.take()
    assert first is not None
    assert second is not None
    backlog.done(second, rest=3600.0)
    backlog.drain(1)
    came = [backlog.take()]
    assert [each.task_id for each in came if each is not None] == ["b2"]
    backlog.done(came[0])  # type: ignore[arg-type]
    backlog.done(first, rest=3600.0)
    last = backlog.take()
    assert last is not None
    assert last.task_id == "a2"
    backlog.done(last)
    assert backlog.take() is None
    backlog.drain(1)
    assert backlog.take() is None
