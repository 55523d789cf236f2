"""Doing a task: one reply whatever happens, and the same one when it is sent again."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flmq.client.context import ClientContext
from flmq.client.factory import Clients
from flmq.client.models.cache import MemoryCache
from flmq.client.models.reader import ModelReader
from flmq.client.tasks.receipts import AwaitedReceipts
from flmq.client.tasks.spool import TaskSpool
from flmq.client.tasks.store import Admission, Tasks, VolatileTasks
from flmq.client.tasks.task_executor import TaskExecutor
from flmq.common import (
    FitIns,
    FitRes,
    NDArrays,
    Parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.phase import Phase
from flmq.messaging import Incoming, Sender
from flmq.transport import (
    MODELS,
    Address,
    Delivery,
    Message,
    Transport,
    client_topology,
    federation_topology,
    job_topology,
    models_topology,
    replies_queue,
    uploads_queue,
)
from flmq.wire import (
    BlobProgress,
    BlobRef,
    Body,
    Failure,
    FailureKind,
    ModelRequest,
    Reply,
    Task,
    blob_chunk_of,
    decode,
    refer,
    tensors_of,
    upload_name,
)
from flmq.wire.codecs import get_codec
from tests.end_to_end.federation import Nudge, initial
from tests.transport.rigs import PATIENCE, QUIET, Rig

SMALL, LARGE = initial(5), initial(50_000)
INCOMING = Incoming(
    Task("t", "job", 1, Phase.FIT, "a", 1, b"", FitIns(SMALL, {})),
    1,
    Delivery(Message(b""), "q", redelivered=False, tag=None),
)


class Trainer(Nudge):
    """Counts, and does what the test asks for besides."""

    def __init__(self, besides: Callable[[], object] = lambda: None) -> None:
        super().__init__("a")
        self.calls = 0
        self.examples = 3
        self.besides = besides

    def fit(self, parameters: NDArrays, config: Any) -> Any:
        self.calls += 1
        self.besides()
        return self.nudged(parameters), self.examples, {}


@dataclass
class Desk:
    """A task executor and, across the broker, what comes of it."""

    transport: Transport
    trainer: Trainer
    later: float = 0.0
    """Seconds by which the clock of receipts is ahead."""

    def __post_init__(self) -> None:
        self.awaited = AwaitedReceipts(clock=lambda: time.monotonic() + self.later)
        self.transport.declare(
            federation_topology() + models_topology() + client_topology("a") + job_topology("job")
        )
        self.sender = Sender(self.transport.publisher())
        self.replies = self.transport.consumer(
            [replies_queue("job"), uploads_queue("job")], prefetch=1000
        )

    def executor(self, max_model_bytes: int | None = None) -> TaskExecutor:
        models = ModelReader(
            self.transport,
            MemoryCache(),
            max_model_bytes=max_model_bytes,
            stopping=threading.Event(),
        )
        context = ClientContext("job", "a", "main", {}, None)
        clients = Clients(self.trainer, lambda *_: context)
        return TaskExecutor(self.sender, models, clients, self.awaited, site="main")

    def publish(self, parameters: Parameters) -> BlobRef:
        ref = refer(parameters, published_unix_ms=time.time_ns() // 1_000_000)
        sent = self.sender.send_blob(Address(MODELS, "job"), ref, ref.digest, parameters.tensors)
        sent.outcome.result(PATIENCE)
        return ref

    def next(self) -> Body:
        """The next envelope."""
        delivery = self.replies.receive(PATIENCE)
        assert delivery is not None
        self.replies.ack(delivery)
        return decode(delivery.message.body)

    def reply(self) -> tuple[Reply, BlobRef | None]:
        """The next reply, its parameters in place (compressed ones as they came)."""
        reply = self.next()
        assert isinstance(reply, Reply)
        if reply.blob is None:
            return reply, None
        ref = reply.blob
        blob, progress = bytearray(ref.total), BlobProgress(ref)
        while not progress.complete:
            delivery = self.replies.receive(PATIENCE)
            assert delivery is not None
            chunk = blob_chunk_of(delivery.message.headers, delivery.message.body)
            assert chunk is not None
            assert chunk.name == upload_name(reply.task_id, ref)
            assert progress.take(chunk.index, chunk.data, memoryview(blob)) is not None
        progress.finish(blob)
        parameters = Parameters([bytes(t) for t in tensors_of(ref, blob)], ref.tensor_type)
        assert isinstance(reply.res, FitRes)
        return replace(reply, res=replace(reply.res, parameters=parameters), blob=None), ref

    def nothing_more(self) -> None:
        assert self.replies.receive(QUIET) is None


@pytest.fixture
def desk(rig: Rig) -> Desk:
    return Desk(rig.transport(), Trainer())


def task(parameters: Parameters = SMALL, **changes: Any) -> Task:
    made = Task("t1", "job", 1, Phase.FIT, "a", 7, b"nonce", FitIns(parameters, {}))
    return replace(made, **changes)


def shared(ref: BlobRef, **changes: Any) -> Task:
    """A task that names its model, which is in the stream."""
    ref = replace(ref, published_unix_ms=ref.published_unix_ms or 1)
    return task(Parameters([], "numpy.ndarray"), model=ref, **changes)


def admitted(tasks: Tasks, *all_of_them: Task) -> Tasks:
    for each in all_of_them:
        assert tasks.admit(each, INCOMING) is Admission.NEW
    return tasks


def trained(parameters: Parameters) -> Parameters:
    return ndarrays_to_parameters(Nudge("a").nudged(parameters_to_ndarrays(parameters)))


def failure_of(reply: Reply) -> Failure:
    assert isinstance(reply.res, Failure)
    return reply.res


@pytest.mark.parametrize("parameters", [SMALL, LARGE], ids=["small", "large"])
def test_a_task_is_answered_whole_or_in_chunks(desk: Desk, parameters: Parameters) -> None:
    mine = task(parameters)
    assert desk.executor().do(mine, admitted(VolatileTasks(), mine))
    reply, ref = desk.reply()
    assert (ref is not None) == (parameters is LARGE)
    assert (reply.task_id, reply.job, reply.server_round, reply.phase) == (
        "t1",
        "job",
        1,
        Phase.FIT,
    )
    assert (reply.client_id, reply.epoch, reply.nonce) == ("a", 7, b"nonce")
    assert isinstance(reply.res, FitRes)
    assert reply.res.parameters == trained(parameters)
    desk.nothing_more()


def test_a_task_that_is_done_is_only_sent_again(desk: Desk, tmp_path: Path) -> None:
    mine = task(LARGE)
    desk.executor().do(mine, admitted(TaskSpool(tmp_path), mine))
    first, _ = desk.reply()
    again = TaskSpool(tmp_path)  # another process
    assert again.left_over() == [mine]
    assert desk.executor().do(mine, again)
    second, _ = desk.reply()
    assert first.times is not None
    assert second.times is not None
    sent_at = second.times.upload_started_ms
    assert sent_at is not None
    assert second == first.timed(first.times.uploaded_at(sent_at)), "but for when it was sent"
    assert desk.trainer.calls == 1


def test_a_model_is_read_for_the_task_that_names_it(desk: Desk) -> None:
    mine = shared(desk.publish(LARGE))
    desk.executor().do(mine, admitted(VolatileTasks(), mine))
    reply, _ = desk.reply()
    assert isinstance(reply.res, FitRes)
    assert reply.res.parameters == trained(LARGE)


@pytest.mark.parametrize("codec", ["zstd", "bf16", "fp16", "int8"])
def test_a_compressed_reply_is_sent_again_with_the_same_bits(
    desk: Desk, tmp_path: Path, codec: str
) -> None:
    mine = shared(desk.publish(LARGE), reply_codec=codec)
    desk.executor().do(mine, admitted(TaskSpool(tmp_path), mine))
    again = TaskSpool(tmp_path)
    again.left_over()
    desk.executor().do(mine, again)
    sent, codecs = [], []
    for _ in range(2):
        reply, ref = desk.reply()
        assert ref is not None
        assert isinstance(reply.res, FitRes)
        tensors: Any = reply.res.parameters.tensors
        codecs.append(ref.codec)
        if ref.codec:
            tensors = get_codec(ref.codec).decode(tensors, LARGE.tensors, max_bytes=10**7)
        sent.append([bytes(tensor) for tensor in tensors])
    assert sent[0] == sent[1]
    assert codecs == [codec, "" if codec == "zstd" else codec]
    assert desk.trainer.calls == 1


def test_a_reply_that_finds_no_queue_stays(desk: Desk) -> None:
    desk.transport.delete_queue(replies_queue("job"))
    for parameters in (SMALL, LARGE):
        mine = task(parameters)
        tasks = admitted(VolatileTasks(), mine)
        assert not desk.executor().do(mine, tasks)
        assert tasks.reply_of("t1") is not None


def test_what_cannot_be_sent_is_a_failure_kept_and_sent(desk: Desk, tmp_path: Path) -> None:
    desk.trainer.examples = 2**70
    tasks = admitted(TaskSpool(tmp_path), task(LARGE))
    desk.executor().do(task(LARGE), tasks)
    reply, _ = desk.reply()
    assert failure_of(reply).kind is FailureKind.BAD_RETURN
    assert "num_examples" in failure_of(reply).message
    kept = tasks.reply_of("t1")
    assert kept is not None
    assert isinstance(kept.res, Failure)


def test_a_full_disk_does_not_keep_a_result_from_the_server(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = admitted(TaskSpool(tmp_path), task(LARGE))

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert desk.executor().do(task(LARGE), tasks)
    reply, _ = desk.reply()
    assert isinstance(reply.res, FitRes)
    assert reply.res.parameters == trained(LARGE)
    assert "cannot be spooled" in caplog.text


def test_what_is_settled_while_it_trains_is_not_sent(desk: Desk, tmp_path: Path) -> None:
    tasks = admitted(TaskSpool(tmp_path), task(LARGE))
    desk.trainer.besides = lambda: tasks.settle("t1")  # its job ended
    assert desk.executor().do(task(LARGE), tasks)
    desk.nothing_more()
    assert list(tmp_path.iterdir()) == []


# -- without its model


def test_a_model_that_is_gone_is_asked_for(desk: Desk) -> None:
    mine = shared(refer(LARGE))
    tasks = admitted(VolatileTasks(), mine)
    doing = threading.Thread(target=desk.executor().do, args=(mine, tasks))
    doing.start()
    assert desk.next() == ModelRequest("job", "a", refer(LARGE).digest)
    desk.publish(LARGE)
    doing.join(PATIENCE)
    reply, _ = desk.reply()
    assert isinstance(reply.res, FitRes)


@pytest.mark.parametrize("why", ["later round", "settled"])
def test_a_model_is_not_asked_for_when_nobody_waits(desk: Desk, why: str) -> None:
    mine, later = shared(refer(LARGE)), task(task_id="t2", server_round=2)
    tasks = admitted(VolatileTasks(), mine, later)
    if why == "settled":
        tasks.settle("t1")
    desk.executor().do(mine, tasks)
    if why == "settled":
        desk.nothing_more()
        return
    reply, _ = desk.reply()
    assert failure_of(reply).kind is FailureKind.REFUSED
    assert "the round is over" in failure_of(reply).message


def test_a_model_that_has_no_room_is_refused_at_once(desk: Desk) -> None:
    mine = shared(refer(LARGE))
    desk.executor(max_model_bytes=1000).do(mine, admitted(VolatileTasks(), mine))
    reply, _ = desk.reply()
    assert failure_of(reply).kind is FailureKind.REFUSED
    assert failure_of(reply).exception_type == "ModelTooLarge"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "disk"), MemoryError("none left")])
def test_what_keeps_a_model_from_being_read_is_reported(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(ModelReader, "get", fails)
    mine = shared(refer(LARGE))
    desk.executor().do(mine, admitted(VolatileTasks(), mine))
    reply, _ = desk.reply()
    assert failure_of(reply).kind is FailureKind.REFUSED
    assert failure_of(reply).exception_type == type(error).__name__


# -- too late


def test_a_task_whose_deadline_passed_in_the_spool_is_reported_and_not_trained(
    desk: Desk, tmp_path: Path
) -> None:
    mine = shared(refer(LARGE), deadline_unix_ms=time.time_ns() // 1_000_000 - 5000)
    admitted(TaskSpool(tmp_path), mine)
    again = TaskSpool(tmp_path)
    (left,) = again.left_over()
    assert desk.executor().do(left, again)
    reply, _ = desk.reply()
    assert failure_of(reply).kind is FailureKind.EXPIRED
    assert "after its deadline" in failure_of(reply).message
    assert desk.trainer.calls == 0


@pytest.mark.parametrize("parameters", [SMALL, LARGE], ids=["small", "large"])
def test_a_reply_is_announced_again_where_no_receipt_comes_and_not_sent_again(
    desk: Desk, parameters: Parameters
) -> None:
    executor, tasks = desk.executor(), admitted(VolatileTasks(), task(parameters))
    assert executor.do(task(parameters), tasks)
    _, ref = desk.reply()
    assert desk.awaited.overdue() == []
    desk.later = 61.0
    (envelope,) = desk.awaited.overdue()
    assert isinstance(envelope, Reply)
    executor.announce_again(envelope, "", gone=lambda: pytest.fail("it is there"))
    again = desk.next()
    assert isinstance(again, Reply)
    assert (again.task_id, again.blob) == ("t1", ref)
    desk.nothing_more()


def test_where_a_reply_cannot_be_announced_again_its_queue_is_gone(desk: Desk) -> None:
    executor, tasks = desk.executor(), admitted(VolatileTasks(), task())
    assert executor.do(task(), tasks)
    desk.replies.close()
    desk.transport.delete_queue(replies_queue("job"))
    desk.later = 61.0
    gone = threading.Event()
    (envelope,) = desk.awaited.overdue()
    assert isinstance(envelope, Reply)
    executor.announce_again(envelope, "", gone.set)
    assert gone.wait(PATIENCE)
