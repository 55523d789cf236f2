"""Tasks in memory: recognized when they come again, acked by their newest message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from flmq.client.options import InvalidWorkerOptions, WorkerOptions
from flmq.client.tasks.spool import TaskSpool
from flmq.client.tasks.store import AckPolicy, Admission, Tasks, VolatileTasks
from flmq.common import Code, FitIns, FitRes, Parameters, Status
from flmq.common.phase import Phase
from flmq.messaging import Incoming
from flmq.transport import Delivery, Message
from flmq.wire import BlobRef, Reply, Task

OK = Status(Code.OK, "")
NONE = Parameters([], "numpy.ndarray")


def task(task_id: str = "t1", **changes: object) -> Task:
    made = Task(task_id, "job", 1, Phase.FIT, "a", 1, b"nonce", FitIns(NONE, {"lr": 0.1}))
    return replace(made, **changes)  # type: ignore[arg-type]


def reply(task_id: str = "t1", parameters: Parameters = NONE) -> Reply:
    res = FitRes(OK, parameters, 3, {"loss": 0.5})
    return Reply(task_id, "job", 1, Phase.FIT, "a", 1, b"nonce", 1.5, res)


def incomings() -> Iterator[Incoming]:
    while True:
        yield Incoming(task(), 1, Delivery(Message(b""), "q", redelivered=False, tag=None))


@pytest.fixture
def mail() -> Iterator[Incoming]:
    return incomings()


Both = tuple[Tasks, Iterator[Incoming]]


@pytest.fixture(params=["volatile", "spool"])
def both(request: pytest.FixtureRequest, tmp_path: Path, mail: Iterator[Incoming]) -> Both:
    return VolatileTasks() if request.param == "volatile" else TaskSpool(tmp_path), mail


def test_the_life_of_a_task(mail: Iterator[Incoming]) -> None:
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


def test_the_newest_message_is_acked(mail: Iterator[Incoming]) -> None:
    tasks, newer = VolatileTasks(), task(deadline_unix_ms=7)
    tasks.admit(task(), next(mail))
    last = next(mail)
    assert tasks.admit(newer, last) is Admission.AGAIN
    assert tasks.current("t1") == newer
    tasks.finished(reply())
    assert tasks.published("t1") is last


def test_one_that_is_done_is_sent_again(mail: Iterator[Incoming]) -> None:
    tasks = VolatileTasks()
    tasks.admit(task(), next(mail))
    tasks.finished(reply())
    tasks.published("t1")
    again = next(mail)
    assert tasks.admit(task(), again) is Admission.DONE
    assert tasks.reply_of("t1") == reply()
    assert tasks.published("t1") is again


def test_one_that_nobody_wants_gives_its_message_back(mail: Iterator[Incoming]) -> None:
    tasks, incoming = VolatileTasks(), next(mail)
    tasks.admit(task(), incoming)
    assert tasks.settle("t1") is incoming
    assert tasks.settle("t1") is None
    assert tasks.finished(reply()) == reply()  # it was in the middle of it
    assert tasks.reply_of("t1") is None
    assert tasks.published("t1") is None


def test_only_the_last_replies_are_kept_and_what_is_let_go_is_named(
    mail: Iterator[Incoming], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that never says what became of them must not fill the memory."""
    tasks, first = VolatileTasks(replies=2), next(mail)
    for name in "abcd":
        tasks.admit(task(name), first if name == "a" else next(mail))
        tasks.finished(reply(name))
        if name != "a":  # which found no queue
            tasks.published(name)
    assert [name for name in "abcd" if tasks.reply_of(name)] == ["c", "d"]
    assert tasks.superseded() == [first]
    assert caplog.text.count("job job, round 1, fit: our reply is let go") == 2
    assert tasks.admit(task("a"), next(mail)) is Admission.NEW  # asked again, it is done anew


def test_replies_are_kept_up_to_so_many_bytes_and_the_last_always(mail: Iterator[Incoming]) -> None:
    tasks, large = VolatileTasks(max_bytes=1000), Parameters([bytes(600)], "numpy.ndarray")
    huge = Parameters([bytes(2000)], "numpy.ndarray")
    kept = []
    for name, parameters in [("a", NONE), ("b", large), ("c", large), ("d", NONE), ("e", huge)]:
        tasks.admit(task(name), next(mail))
        tasks.finished(reply(name, parameters))
        kept.append("".join(name for name in "abcde" if tasks.reply_of(name)))
    assert kept == ["a", "ab", "c", "cd", "e"]


def test_a_settled_task_is_done_anew_only_where_its_server_wants_that(both: Both) -> None:
    tasks, mail = both
    tasks.admit(task(), next(mail))
    tasks.finished(reply())
    tasks.settle("t1")
    for _ in range(2):
        assert tasks.admit(task(epoch=2), next(mail)) is Admission.SETTLED
    assert tasks.admit(task(epoch=2, again=2), next(mail)) is Admission.NEW
    assert tasks.admit(task(epoch=2, again=2), next(mail)) is Admission.AGAIN
    tasks.finished(reply())
    assert tasks.admit(task(epoch=2, again=2), next(mail)) is Admission.DONE
    for _ in range(2):  # its receipt, and one that was asked for meanwhile
        tasks.settle("t1")
    assert tasks.admit(task(epoch=2, again=2), next(mail)) is Admission.SETTLED  # the broker's
    assert tasks.admit(task(epoch=2), next(mail)) is Admission.SETTLED
    assert tasks.admit(task(epoch=3, again=3), next(mail)) is Admission.NEW


def test_a_task_that_is_let_go_is_done_anew(both: Both) -> None:
    tasks, mail = both
    tasks.admit(task(), next(mail))
    tasks.finished(reply())
    tasks.let_go("t1")
    assert (tasks.current("t1"), tasks.reply_of("t1"), tasks.of_job("job")) == (None, None, [])
    assert tasks.admit(task(), next(mail)) is Admission.NEW


@pytest.mark.parametrize(
    "other",
    [{"ins": FitIns(NONE, {"lr": 0.2})}, {"model": BlobRef("b" * 64, "numpy.ndarray", (8,))}],
    ids=["config", "model"],
)
def test_a_reply_to_another_question_is_not_sent(both: Both, other: dict[str, object]) -> None:
    tasks, mail = both
    first = task(model=BlobRef("a" * 64, "numpy.ndarray", (8,), published_unix_ms=1))
    same = task(
        epoch=2,
        run="said",
        deadline_unix_ms=7,
        model=replace(cast(BlobRef, first.model), published_unix_ms=2),
    )
    tasks.admit(first, next(mail))
    tasks.finished(reply())
    assert tasks.admit(same, next(mail)) is Admission.DONE
    changed = replace(same, **other)  # type: ignore[arg-type]
    assert tasks.admit(changed, next(mail)) is Admission.AGAIN
    assert (tasks.current("t1"), tasks.reply_of("t1")) == (changed, None)


def test_only_the_last_settled_are_remembered(mail: Iterator[Incoming]) -> None:
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
