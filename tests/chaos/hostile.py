"""Hostile messages, put into a job's queues in mid-run: what no peer of flmq's would send."""

from __future__ import annotations

import random

from flmq.common.phase import Phase
from flmq.common.typing import FitIns, Parameters, ReconnectIns
from flmq.common.urls import parse_broker_url
from flmq.transport import Address, client_queue, presence_queue, replies_queue
from flmq.wire import BlobRef, JobEnded, Task, encode
from flmq.wire.envelopes import Ins
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from tests.rawamqp import RawPublisher, properties
from tests.transport.oddities import ODD

__all__ = ["FORGED_JOB", "forget_forged", "send_hostile"]

FORGED_JOB = "forged"
"""The job that poisonous tasks name: nobody runs it."""
_EPOCH = 1_700_000_000_000


def send_hostile(url: str, job: str, client: str, seed: float) -> None:
    """Put one message, chosen by ``seed``, into a queue of ``job`` or of its ``client``."""
    rng = random.Random(seed)
    queue = rng.choice([client_queue(client), replies_queue(job), presence_queue(job)])
    poison = queue == client_queue(client) and rng.random() < 0.5
    if poison:
        _put(url, queue, _poison(rng, client), properties(delivery_mode=2))
    else:
        _put(url, queue, rng.randbytes(40), rng.choice(list(ODD.values())).encoded)


def forget_forged(url: str, client: str) -> None:
    """Tell a client that the job of the poisonous tasks is over."""
    body = encode(JobEnded(FORGED_JOB, _EPOCH, reason="it was never there"))
    _put(url, client_queue(client), body, properties(delivery_mode=2))


def _poison(rng: random.Random, client: str) -> bytes:
    """A task that cannot be done: by what it asks for, or by numbers that no task may have."""
    model = BlobRef(rng.randbytes(32).hex(), "numpy.ndarray", (64,))
    poisons: list[tuple[Phase, Ins, BlobRef | None]] = [
        (Phase.RECONNECT, ReconnectIns(1), None),
        (Phase.FIT, FitIns(Parameters([], "numpy.ndarray"), {}), model),
        (Phase.FIT, FitIns(Parameters([b"no array"], "numpy.ndarray"), {}), None),
    ]
    phase, ins, ref = rng.choice(poisons)
    task = Task(
        task_id=f"{rng.getrandbits(128):032x}",
        job=FORGED_JOB,
        server_round=1,
        phase=phase,
        client_id=client,
        epoch=_EPOCH,
        nonce=rng.randbytes(16),
        ins=ins,
        model=ref,
    )
    envelope = pb.Envelope.FromString(encode(task))
    if ref is not None:
        envelope.task.model.published_unix_ms = 2**62
    elif phase is Phase.RECONNECT:
        envelope.task.reconnect.seconds = 2**62
    return envelope.SerializeToString()


def _put(url: str, queue: str, body: bytes, encoded: bytes) -> None:
    with RawPublisher(parse_broker_url(url)) as publisher:
        publisher.publish(Address("", queue), body, encoded)
