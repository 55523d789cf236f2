"""Whatever stands in a task, it is that task that fails: the client lives and serves the next."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flmq.client.serving.worker import WorkerOptions
from flmq.common import FitIns, Parameters
from flmq.common.phase import Phase
from flmq.common.typing import DisconnectRes, EvaluateIns, GetParametersIns, ReconnectIns
from flmq.testing import fast_retries
from flmq.transport import (
    MODELS,
    Address,
    Consumer,
    job_topology,
    replies_queue,
    task_key,
    uploads_queue,
)
from flmq.transport import TASKS as EXCHANGE
from flmq.wire import BlobRef, Failure, Reply, Task, decode, encode, refer
from tests.end_to_end.federation import Federation, Peer, initial, nudge
from tests.transport.rigs import PATIENCE, MemoryRig

LARGE = initial(50_000)
NOTHING = Parameters([], "numpy.ndarray")
EDGES = [0, 1, 2**31, 2**53, 2**62, 2**63 - 1]
SIGNED = st.sampled_from([*EDGES, *(-edge for edge in EDGES), -(2**63)]) | st.integers(
    -(2**63), 2**63 - 1
)
UNSIGNED = st.sampled_from([*EDGES, 2**64 - 1]) | st.integers(0, 2**64 - 1)
SECONDS = st.sampled_from([0.0, 5e-324, 1e-300, 1e300, 1.7e308]) | st.floats(
    0, allow_nan=False, allow_infinity=False
)
SCALARS = SIGNED | st.floats() | st.text(max_size=5) | st.binary(max_size=5) | st.booleans()
CONFIGS = st.dictionaries(st.text(max_size=5), SCALARS, max_size=3)
INS = (
    st.builds(FitIns, st.just(initial()), CONFIGS)
    | st.builds(EvaluateIns, st.just(initial()), CONFIGS)
    | st.builds(GetParametersIns, CONFIGS)
    # Others would have the worker wait for as long as the server asks, as it should.
    | st.builds(ReconnectIns, SIGNED.filter(lambda s: not 0 < s <= 24 * 3600))
)
PHASES: dict[type, Phase] = {
    FitIns: Phase.FIT,
    EvaluateIns: Phase.EVALUATE,
    GetParametersIns: Phase.GET_PARAMETERS,
    ReconnectIns: Phase.RECONNECT,
}


class Line:
    """A worker with a spool, the end of its line in a test's hands."""

    def __init__(self, federation: Federation, folder: Path) -> None:
        self.federation = federation
        self.folder = folder
        self.peer: Peer = federation.peer("server")
        self.count = 0
        self.begin()
        self.model = refer(LARGE)
        self.publish_model()

    def publish_model(self) -> None:
        ref = self.model
        sent = self.peer.sender.send_blob(Address(MODELS, "job"), ref, ref.digest, LARGE.tensors)
        sent.outcome.result(PATIENCE)

    def begin(self, unix_clock: Callable[[], float] = time.time) -> None:
        options = WorkerOptions(state_dir=self.folder)
        self.federation.serve("a", source=nudge, options=options, unix_clock=unix_clock)

    def ask(self, task: Task) -> Reply:
        """Have a task of a job of its own answered."""
        self.count += 1
        task = replace(task, job=f"job-{self.count}", task_id=f"task-{self.count}")
        consumer = self.listen(task.job)
        self.peer.send(Address(EXCHANGE, task_key("main", "a")), task)
        reply = self.reply(consumer)
        consumer.close()
        assert (reply.task_id, reply.nonce) == (task.task_id, task.nonce)
        assert not self.federation.workers["a"].done.done()
        return reply

    def listen(self, job: str) -> Consumer:
        transport = self.peer.transport
        transport.declare(job_topology(job))
        return transport.consumer([replies_queue(job), uploads_queue(job)], prefetch=100)

    def reply(self, consumer: Consumer) -> Reply:
        """The next; a model that is asked for is published again, as a server does."""
        while True:
            delivery = consumer.receive(PATIENCE)
            assert delivery is not None, "no reply"
            consumer.ack(delivery)
            if "x-flmq-blob" in delivery.message.headers:
                continue
            reply = decode(delivery.message.body)
            if isinstance(reply, Reply):
                return reply
            self.publish_model()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Without the wire's own bounds: the worker stands by itself, whatever they are raised to."""
    with fast_retries(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("flmq.wire.codec.check", lambda body: None)
        rig = MemoryRig()
        federation = Federation(rig)
        yield Line(federation, tmp_path_factory.mktemp("state"))
        federation.close()
        rig.close()


def task(ins: Any, **changes: Any) -> Task:
    made = Task("task", "job", 1, PHASES[type(ins)], "a", 1, b"nonce", ins)
    return replace(made, **changes)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ins=INS,
    server_round=UNSIGNED,
    epoch=UNSIGNED,
    nonce=st.binary(max_size=40),
    deadline=st.none() | SIGNED,
    timeout=st.none() | SECONDS,
    published=st.none() | SIGNED,
    codec=st.sampled_from(["", "zstd", "int8", "fp16", "nosuch", "../..", "\0"]),
)
@example(ReconnectIns(2**62), 1, 1, b"", None, None, None, "")
@example(FitIns(NOTHING, {}), 1, 1, b"", None, None, 2**62, "")
@example(FitIns(NOTHING, {}), 1, 1, b"", None, None, -(2**63), "fp16")
def test_every_field_at_its_ends_gives_one_reply(
    line: Line,
    ins: Any,
    server_round: int,
    epoch: int,
    nonce: bytes,
    deadline: int | None,
    timeout: float | None,
    published: int | None,
    codec: str,
) -> None:
    model: BlobRef | None = None
    if published is not None and isinstance(ins, FitIns | EvaluateIns):
        model = replace(line.model, published_unix_ms=published)
        ins = replace(ins, parameters=NOTHING)
    hostile = task(
        ins,
        server_round=server_round,
        epoch=epoch,
        nonce=nonce,
        deadline_unix_ms=deadline,
        timeout_seconds=timeout,
        model=model,
        reply_codec=codec,
    )
    reply = line.ask(hostile)
    if deadline is None and isinstance(ins, FitIns):
        assert not isinstance(reply.res, Failure), reply.res


@pytest.mark.parametrize("seconds", [2**62, -1, 24 * 3600 + 1])
def test_a_client_is_not_sent_away_for_ever(line: Line, seconds: int) -> None:
    reply = line.ask(task(ReconnectIns(seconds)))
    assert isinstance(reply.res, Failure)
    assert str(seconds) in reply.res.message
    assert isinstance(line.ask(task(ReconnectIns(0))).res, DisconnectRes)


def test_a_spooled_task_that_killed_an_earlier_version_is_answered(
    line: Line, tmp_path: Path
) -> None:
    """It lies in the spool when the worker starts: each start had ended in it."""
    line.federation.workers["a"].stop()
    spool = _emptied(line.folder / "a" / "spool")
    hostile = task(
        FitIns(NOTHING, {}),
        job="spooled",
        task_id="spooled",
        model=replace(line.model, published_unix_ms=2**62),
    )
    consumer = line.listen("spooled")
    _write_sealed(spool / "spooled.task", encode(hostile))
    _write_sealed(spool / "away.task", encode(task(ReconnectIns(2**62), job="spooled")))
    (spool / "away.task").rename(spool / "task.task")
    line.begin()
    answered = {line.reply(consumer).task_id for _ in range(2)}
    assert answered == {"spooled", "task"}
    assert not isinstance(line.ask(task(FitIns(initial(), {}))).res, Failure)


def test_a_clock_that_is_days_ahead_expires_no_spooled_task(line: Line) -> None:
    """Killed before the task was done, and started again: when it came is known to its file."""
    line.federation.workers["a"].stop()
    spool = _emptied(line.folder / "a" / "spool")
    right = time.time
    deadline = round(right() * 1000) + 60_000
    consumer = line.listen("ahead")
    for name, came, asked in (("fresh", 5.0, 60.0), ("stale", 120.0, 60.0)):
        told = task(
            FitIns(initial(), {}),
            job="ahead",
            task_id=name,
            deadline_unix_ms=deadline,
            timeout_seconds=asked,
        )
        _write_sealed(spool / f"{name}.task", encode(told))
        ahead = right() + 2 * 86_400 - came
        os.utime(spool / f"{name}.task", (ahead, ahead))
    line.begin(lambda: right() + 2 * 86_400)
    replies = {reply.task_id: reply.res for reply in (line.reply(consumer) for _ in range(2))}
    assert not isinstance(replies["fresh"], Failure)
    stale = replies["stale"]  # its time was over while it lay there
    assert isinstance(stale, Failure)
    assert stale.exception_type == "Expired"


def _emptied(spool: Path) -> Path:
    """Without the tasks of other tests, whose replies nobody took: they would be sent first."""
    for path in spool.iterdir():
        path.unlink()
    return spool


def _write_sealed(path: Path, data: bytes) -> None:
    """As the spool does."""
    path.write_bytes(data + hashlib.sha256(data).digest())
