"""Replies by way of a site's aggregator: where they go, and how they go another way."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from flmq.client.tasks.spool import TaskSpool
from flmq.client.tasks.store import Admission, Tasks, VolatileTasks, asks_the_same
from flmq.common import Parameters
from flmq.transport import (
    aggregator_topology,
    regional_queue,
    regional_uploads_queue,
)
from flmq.wire import Reply
from tests.client.test_task_executor import (
    INCOMING,
    LARGE,
    SMALL,
    Desk,
    Trainer,
    admitted,
    task,
)
from tests.transport.rigs import PATIENCE, Rig


@pytest.fixture
def desk(rig: Rig) -> Desk:
    return Desk(rig.transport(), Trainer())


def aggregator(desk: Desk) -> Desk:
    """What an aggregator of the site hears."""
    desk.transport.declare(aggregator_topology("main"))
    queues = [regional_queue("main"), regional_uploads_queue("main")]
    heard = Desk(desk.transport, desk.trainer)
    heard.replies.close()
    heard.replies = desk.transport.consumer(queues, prefetch=1000)
    return heard


def untimed(reply: Reply) -> Reply:
    """The reply without its times: each sending has one of its own."""
    return replace(reply, times=None)


def test_another_way_asks_the_same() -> None:
    assert asks_the_same(task(via="main"), task())


@pytest.mark.parametrize("parameters", [SMALL, LARGE], ids=["small", "large"])
def test_a_reply_goes_to_the_aggregator_that_the_task_names(
    desk: Desk, parameters: Parameters
) -> None:
    heard = aggregator(desk)
    mine = task(parameters, via="main")
    assert desk.executor().do(mine, admitted(VolatileTasks(), mine))
    reply, ref = heard.reply()
    assert (reply.task_id, ref is not None) == ("t1", parameters is LARGE)
    desk.nothing_more()


@pytest.mark.parametrize("parameters", [SMALL, LARGE], ids=["small", "large"])
def test_where_no_aggregator_ever_ran_it_goes_to_the_server_at_once(
    desk: Desk, parameters: Parameters
) -> None:
    mine = task(parameters, via="main")
    assert desk.executor().do(mine, admitted(VolatileTasks(), mine))
    assert desk.reply()[0].task_id == "t1"
    desk.nothing_more()


@pytest.mark.parametrize("kind", ["memory", "spool", "spool, another process"])
def test_asked_another_way_a_finished_reply_is_sent_again_that_way(
    desk: Desk, tmp_path: Path, kind: str
) -> None:
    heard = aggregator(desk)
    mine = task(LARGE, via="main")
    tasks: Tasks = VolatileTasks() if kind == "memory" else TaskSpool(tmp_path)
    assert desk.executor().do(mine, admitted(tasks, mine))
    first, _ = heard.reply()
    if kind == "spool, another process":
        tasks = TaskSpool(tmp_path)
        assert tasks.left_over() == [mine]
    direct = replace(mine, via="", epoch=8)
    assert tasks.admit(direct, INCOMING) is Admission.DONE
    assert desk.executor().do(direct, tasks)
    assert untimed(desk.reply()[0]) == untimed(first)
    assert tasks.admit(mine, INCOMING) is Admission.DONE
    assert desk.executor().do(mine, tasks)
    assert untimed(heard.reply()[0]) == untimed(first)
    assert desk.trainer.calls == 1, "nothing is trained twice"


def test_a_way_that_changes_while_it_trains_is_taken(desk: Desk) -> None:
    heard = aggregator(desk)
    mine, tasks = task(via="main"), VolatileTasks()
    admitted(tasks, mine)
    desk.trainer.besides = lambda: tasks.admit(replace(mine, via=""), INCOMING)
    assert desk.executor().do(mine, tasks)
    assert desk.reply()[0].task_id == "t1"
    heard.nothing_more()


def test_a_receipt_is_asked_for_the_way_that_the_reply_went(desk: Desk) -> None:
    heard = aggregator(desk)
    mine = task(LARGE, via="main")
    executor = desk.executor()
    assert executor.do(mine, admitted(VolatileTasks(), mine))
    heard.reply()
    desk.later = 61.0
    (envelope,) = desk.awaited.overdue()
    assert isinstance(envelope, Reply)
    executor.announce_again(envelope, "main", gone=lambda: pytest.fail("it is there"))
    again = heard.next()
    assert isinstance(again, Reply)
    assert again.task_id == "t1"
    desk.nothing_more()
    heard.replies.close()
    for queue in (regional_queue("main"), regional_uploads_queue("main")):
        desk.transport.delete_queue(queue)
    gone = threading.Event()
    executor.announce_again(envelope, "main", gone.set)
    assert gone.wait(PATIENCE), "then the whole reply is sent again, to the server"
