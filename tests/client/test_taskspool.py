"""The spool on disk: what a crash, a full disk or damage leaves of tasks and replies."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flmq.client.tasks.receipts import KEPT_FOR
from flmq.client.tasks.spool import SpoolNotWritable, TaskSpool
from flmq.client.tasks.store import Admission
from flmq.common import FitIns, FitRes, Parameters, ndarrays_to_parameters
from flmq.common.exhausted import SystemExhausted
from flmq.wire import INLINE_BYTES, Failure, FailureKind, Reply, Task
from flmq.wire.budget import MAX_ENVELOPE_BYTES
from tests.client.test_tasks import incomings, reply, task
from tests.descriptors import no_more_files

INCOMING = next(incomings())
LARGE = ndarrays_to_parameters([np.arange(INLINE_BYTES, dtype=np.float32), np.zeros(0)])
SMALL = ndarrays_to_parameters([np.arange(3.0)])


def opened(folder: Path) -> TaskSpool:
    """The spool of a process that has just started."""
    spool = TaskSpool(folder)
    spool.left_over()
    return spool


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def same(one: Reply | None, other: Reply) -> bool:
    """Equal, views or bytes."""
    return one is not None and _plain(one) == _plain(other)


def _plain(each: Reply) -> Reply:
    res = each.res
    assert isinstance(res, FitRes)
    tensors = [bytes(tensor) for tensor in res.parameters.tensors]
    return replace(each, res=replace(res, parameters=replace(res.parameters, tensors=tensors)))


def test_a_task_outlives_the_process_until_it_is_settled(tmp_path: Path) -> None:
    mine = task(deadline_unix_ms=5, ins=FitIns(SMALL, {"lr": 0.1}))
    assert opened(tmp_path).admit(mine, INCOMING) is Admission.NEW
    second = TaskSpool(tmp_path)
    assert second.left_over() == [mine]
    assert second.admit(mine, INCOMING) is Admission.AGAIN
    assert second.of_job("job") == ["t1"]
    assert second.settle("t1") is None
    assert files(tmp_path) == set()
    assert second.admit(mine, INCOMING) is Admission.SETTLED
    assert TaskSpool(tmp_path).left_over() == []


def test_a_task_that_an_earlier_flmq_spooled_with_a_model_in_it_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = task(ins=FitIns(Parameters([bytes(MAX_ENVELOPE_BYTES)], "raw"), {}))
    with monkeypatch.context() as earlier:
        earlier.setattr("flmq.wire.codec.check_budget", lambda body, kind: None)
        opened(tmp_path).admit(mine, INCOMING)
    assert TaskSpool(tmp_path).left_over() == [mine]


def test_tasks_come_back_in_their_order(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number, name in enumerate("cab"):
        spool.admit(task(name), INCOMING)
        os.utime(tmp_path / f"{name}.task", (1e9 * 2 + number, 1e9 * 2 + number))
    assert [each.task_id for each in TaskSpool(tmp_path).left_over()] == ["c", "a", "b"]


def test_a_newer_form_of_a_task_replaces_the_older(tmp_path: Path) -> None:
    spool, newer = opened(tmp_path), task(epoch=2, deadline_unix_ms=9)
    spool.admit(task(), INCOMING)
    assert spool.admit(newer, INCOMING) is Admission.AGAIN
    assert spool.current("t1") == newer
    assert TaskSpool(tmp_path).left_over() == [newer]


@pytest.mark.parametrize("parameters", [LARGE, SMALL, Parameters([], ""), Parameters([b""], "x")])
def test_a_reply_outlives_the_process_until_it_is_settled(
    tmp_path: Path, parameters: Parameters
) -> None:
    mine = reply(parameters=parameters)
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    assert same(spool.finished(mine), mine)
    second = opened(tmp_path)
    assert same(second.reply_of("t1"), mine)
    assert second.admit(task(), INCOMING) is Admission.DONE
    assert second.published("t1") is None
    second.settle("t1")
    assert files(tmp_path) == set()
    assert second.reply_of("t1") is None


def test_a_failure_is_kept_as_well(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    failed = replace(reply(), res=Failure(FailureKind.EXCEPTION, "KeyError", "x"))
    spool.finished(failed)
    assert opened(tmp_path).reply_of("t1") == failed


def test_what_is_sent_lives_on_when_its_file_is_removed(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    kept = spool.finished(reply(parameters=LARGE))
    spool.settle("t1")  # its receipt may come before its last confirm
    assert same(kept, reply(parameters=LARGE))


def test_the_reply_to_a_task_that_is_settled_is_not_written(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    spool.settle("t1")
    assert spool.finished(reply(parameters=LARGE)) == reply(parameters=LARGE)
    assert files(tmp_path) == set()


def test_a_standby_sees_what_was_there_when_it_takes_over(tmp_path: Path) -> None:
    """It opens the folder long before; what is settled by then is not done again."""
    active, standby = opened(tmp_path), TaskSpool(tmp_path)
    active.admit(task("old"), INCOMING)
    standby_before = TaskSpool(tmp_path)
    active.settle("old")
    active.admit(task("new"), INCOMING)
    for spool in (standby, standby_before):
        assert spool.left_over() == [task("new")]
        assert spool.current("old") is None


# -- damage


@pytest.mark.parametrize("parameters", [SMALL, LARGE], ids=["small", "large"])
def test_a_process_that_may_open_no_file_lays_nothing_aside(
    tmp_path: Path, parameters: Parameters
) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    spool.finished(reply(parameters=parameters))
    before = sorted(tmp_path.iterdir())
    with no_more_files():
        with pytest.raises(SystemExhausted, match=r"t1\.reply: .*ulimit -n"):
            spool.reply_of("t1")
        with pytest.raises(SpoolNotWritable, match="ulimit -n"):
            spool.admit(task("t2"), INCOMING)
    assert sorted(tmp_path.iterdir()) == before
    assert same(spool.reply_of("t1"), reply(parameters=parameters))


def test_a_spool_that_cannot_be_read_for_want_of_descriptors_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path).admit(task(), INCOMING)
    spool = TaskSpool(tmp_path)

    def no_more(_: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", no_more)
        with pytest.raises(SystemExhausted, match=r"t1\.task"):
            spool.left_over()
    assert opened(tmp_path).current("t1") == task()


def test_a_damaged_reply_is_made_again(tmp_path: Path) -> None:
    for name in ("t1.reply", "t1.blob"):
        spool = opened(tmp_path)
        spool.admit(task(), INCOMING)
        spool.finished(reply(parameters=LARGE))
        path = tmp_path / name
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        after = TaskSpool(tmp_path)
        assert after.left_over() == [task()]
        assert after.reply_of("t1") is None
        after.finished(reply(parameters=SMALL))
        assert same(opened(tmp_path).reply_of("t1"), reply(parameters=SMALL))
        after.settle("t1")


def test_a_reply_that_is_damaged_meanwhile_is_made_again_when_its_task_comes_again(
    tmp_path: Path,
) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    spool.finished(reply())
    (tmp_path / "t1.reply").write_bytes(b"?")
    assert spool.admit(task(), INCOMING) is Admission.NEW
    assert spool.admit(task(), INCOMING) is Admission.AGAIN


@pytest.mark.parametrize("name", ["t1.task", "t1.reply", "t1.blob"])
def test_a_file_that_is_cut_at_any_byte_is_noticed(tmp_path: Path, name: str) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    spool.finished(reply(parameters=LARGE))
    path = tmp_path / name
    whole = path.read_bytes()
    lengths = set(range(min(len(whole), 400))) | {len(whole) - 32, len(whole) - 1}
    for length in lengths if name != "t1.blob" else (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        after = TaskSpool(tmp_path)
        if name == "t1.task":
            assert after.left_over() == []
            (tmp_path / "t1.task.damaged").unlink()
        else:
            assert after.left_over() == [task()]
            assert after.reply_of("t1") is None
            (tmp_path / "t1.reply.damaged").rename(tmp_path / "t1.reply")
        path.write_bytes(whole)
        assert opened(tmp_path).reply_of("t1") is not None, "the other files are unharmed"


def test_a_damaged_task_is_set_aside_and_its_reply_answers_it_when_it_comes_again(
    tmp_path: Path,
) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    spool.finished(reply(parameters=LARGE))
    (tmp_path / "t1.task").write_bytes(b"no task")
    after = TaskSpool(tmp_path)
    assert after.left_over() == []
    assert (tmp_path / "t1.task.damaged").read_bytes() == b"no task"
    assert after.admit(task(), INCOMING) is Admission.NEW
    assert same(after.reply_of("t1"), reply(parameters=LARGE))


def test_another_tasks_file_under_this_name_is_no_use(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.admit(task("t1"), INCOMING)
    (tmp_path / "t1.task").rename(tmp_path / "t2.task")
    assert TaskSpool(tmp_path).left_over() == []
    spool.admit(task("t3"), INCOMING)
    spool.finished(reply("t3"))
    (tmp_path / "t3.reply").rename(tmp_path / "t3.task")
    assert TaskSpool(tmp_path).left_over() == []


def test_what_a_killed_process_left_of_what_is_gone_is_removed(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    spool.finished(reply(parameters=LARGE))
    (tmp_path / "t1.task").unlink()  # killed in the middle of `settle`
    (tmp_path / "t2.task.tmp").write_bytes(b"half")
    assert TaskSpool(tmp_path).left_over() == []
    assert files(tmp_path) == set()


def test_what_nobody_asked_for_in_a_fortnight_is_removed(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for name in ("old", "new"):
        spool.admit(task(name), INCOMING)
        spool.finished(reply(name))
    for path in tmp_path.glob("new.*"):
        os.utime(path, (2e9, 2e9))
    for path in tmp_path.glob("old.*"):
        os.utime(path, (2e9 - 100, 2e9 - 100))
    assert TaskSpool(tmp_path, lambda: 2e9 - 99 + KEPT_FOR).left_over() == [task("new")]
    assert {path.name for path in tmp_path.iterdir()} == {"new.task", "new.reply"}


# -- a disk that is full


def _full(file: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_task_that_cannot_be_written_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path)
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(SpoolNotWritable, match=r"No space left.*--state-dir") as info:
        spool.admit(task(), INCOMING)
    assert info.value.folder == tmp_path
    assert (spool.current("t1"), files(tmp_path)) == (None, set())


def test_a_reply_that_cannot_be_written_leaves_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path)
    spool.admit(task(), INCOMING)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", _full)
        with pytest.raises(OSError, match="No space left"):
            spool.finished(reply(parameters=LARGE))
    assert files(tmp_path) == {".task"}
    after = TaskSpool(tmp_path)
    assert isinstance(after.left_over()[0], Task)
    assert after.reply_of("t1") is None
