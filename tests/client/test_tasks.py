"""Tasks in memory: recognized when they come again, acked by their newest letter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flmq.client.options import InvalidWorkerOptions, WorkerOptions
from flmq.client.tasks import AckPolicy, Admission, VolatileTasks
from flmq.client.taskspool import TaskSpool
from flmq.common import Code, FitIns, FitRes, Parameters, Status
from flmq.common.phase import Phase
from flmq.post import Letter
from flmq.wire import Reply, Task

OK = Status(Code.OK, "")
NONE = Parameters([], "numpy.ndarray")


def task(task_id: str = "t1", **changes: object) -> Task:
    made = Task(task_id, "job", 1, Phase.FIT, "a", 1, b"nonce", FitIns(NONE, {"lr": 0.1}))
    return replace(made, **changes)  # type: ignore[arg-type]


def reply(task_id: str = "t1", parameters: Parameters = NONE) -> Reply:
    res = FitRes(OK, parameters, 3, {"loss": 0.5})
    return Reply(task_id, "job", 1, Phase.FIT, "a", 1, b"nonce", 1.5, res)


def letters() -> Iterator[Letter]:
    while True:
        yield Letter(task(), 1, ())


@pytest.fixture
def mail() -> Iterator[Letter]:
    return letters()


def test_the_life_of_a_task(mail: Iterator[Letter]) -> None:
    tasks, first = VolatileTasks(), next(mail)
    assert tasks.admit(task(), first) is Admission.NEW
    assert (tasks.current("t1"), tasks.of_job("job"), tasks.of_job("other")) == (task(), ["t1"], [])
    assert tasks.reply_of("t1") is None
    assert tasks.finished(reply()) == reply()
    assert tasks.reply_of("t1") == reply()
    assert tasks.published("t1") is first
    assert tasks.published("t1") is None  # once acked is acked
    assert tasks.settle("t1") is None
    assert (tasks.current("t1"), tasks.of_job("job")) == (None, [])
    assert tasks.admit(task(), next(mail)) is Admission.SETTLED


def test_the_newest_letter_is_acked(mail: Iterator[Letter]) -> None:
    tasks, newer = VolatileTasks(), task(deadline_unix_ms=7)
    tasks.admit(task(), next(mail))
    last = next(mail)
    assert tasks.admit(newer, last) is Admission.AGAIN
    assert tasks.current("t1") == newer
    tasks.finished(reply())
    assert tasks.published("t1") is last


def test_one_that_is_done_is_sent_again(mail: Iterator[Letter]) -> None:
    tasks = VolatileTasks()
    tasks.admit(task(), next(mail))
    tasks.finished(reply())
    tasks.published("t1")
    again = next(mail)
    assert tasks.admit(task(), again) is Admission.DONE
    assert tasks.reply_of("t1") == reply()
    assert tasks.published("t1") is again


def test_one_that_nobody_wants_gives_its_letter_back(mail: Iterator[Letter]) -> None:
    tasks, letter = VolatileTasks(), next(mail)
    tasks.admit(task(), letter)
    assert tasks.settle("t1") is letter
    assert tasks.settle("t1") is None
    assert tasks.finished(reply()) == reply()  # it was in the middle of it
    assert tasks.reply_of("t1") is None
    assert tasks.published("t1") is None


def test_only_the_last_replies_are_kept(mail: Iterator[Letter]) -> None:
    """A server that never says what became of them must not fill the memory."""
    tasks = VolatileTasks(replies=2)
    for name in "abcd":
        tasks.admit(task(name), next(mail))
        tasks.finished(reply(name))
        tasks.published(name)
    assert [name for name in "abcd" if tasks.reply_of(name)] == ["b", "c", "d"]
    assert tasks.admit(task("a"), next(mail)) is Admission.SETTLED


def test_only_the_last_settled_are_remembered(mail: Iterator[Letter]) -> None:
    tasks = VolatileTasks(remember=2)
    for name in "abc":
        tasks.admit(task(name), next(mail))
        tasks.settle(name)
    assert tasks.admit(task("a"), next(mail)) is Admission.NEW
    assert tasks.admit(task("c"), next(mail)) is Admission.SETTLED


def test_nothing_is_left_over() -> None:
    assert VolatileTasks().left_over() == []


def test_the_policy_is_accept_where_there_is_a_folder(tmp_path: Path) -> None:
    assert isinstance(WorkerOptions().tasks("a"), VolatileTasks)
    assert isinstance(WorkerOptions(state_dir=tmp_path).tasks("a"), TaskSpool)
    result = WorkerOptions(state_dir=tmp_path, ack=AckPolicy.RESULT)
    assert isinstance(result.tasks("a"), VolatileTasks)
    with pytest.raises(InvalidWorkerOptions, match="--state-dir"):
        WorkerOptions(ack=AckPolicy.ACCEPT)
