"""Hostile messages through a real broker, into every queue, while honest clients train.

Nothing ends, the model has the bits of an undisturbed run, memory stays flat, what is laid aside is
bounded, and the log says who sent how many.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.descriptor import Descriptor

from flmq.common import Config, Metrics, NDArrays
from flmq.common.phase import Phase
from flmq.observe.events import ClientOutcome, Outcome
from flmq.region import AggregatorOptions
from flmq.region.app import Aggregator
from flmq.testing import fast_retries
from flmq.transport import (
    DEAD,
    MODELS,
    PARTIALS,
    PRESENCE,
    REGIONAL,
    REGIONAL_UPLOADS,
    REPLIES,
    UPLOADS,
    Address,
    Message,
    client_queue,
    models_topology,
    own_models_queue,
    own_models_topology,
)
from flmq.transport.regional import aggregator_queue
from flmq.wire import Body, encode, task_id
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from tests.end_to_end.federation import JOB, Federation, Nudge, fed_avg, in_thread
from tests.fuzz.harness import held_bytes
from tests.fuzz.protobufs import mutated, parse
from tests.fuzz.test_bombs import BOMBS, HEAD
from tests.rawamqp import RawPublisher, properties, table
from tests.transport.oddities import ODD
from tests.transport.rigs import PATIENCE, MemoryRig, RabbitMQRig
from tests.wire.cases import BODIES

_CLIENTS = ("a", "b", "c")
_ROUNDS = 10
_GROWTH = 40 << 20
"""Bytes by which server, clients, aggregator and sender together may grow after the first 30 % of
the messages: of 5,000, a leak of 12 KiB each would be more."""


@dataclass(frozen=True)
class Way:
    """Into a queue: by an exchange and a key, as a hostile client would."""

    address: Address
    job: str


def _ways() -> list[Way]:
    named = f"main.mallory.{JOB}"
    return [
        *(Way(Address(exchange, named), JOB) for exchange in (REPLIES, UPLOADS)),
        Way(Address(PRESENCE, "main.mallory"), JOB),
        *(Way(Address(exchange, named), JOB) for exchange in (REGIONAL, REGIONAL_UPLOADS)),
        Way(Address(PARTIALS, named), JOB),
        # Whoever can write there could end the job: what is well-formed is of another.
        *(Way(Address("", client_queue(client)), "forged") for client in _CLIENTS),
        Way(Address("", aggregator_queue("main")), "forged"),
        Way(Address("", own_models_queue("a")), JOB),
        Way(Address(MODELS, JOB), JOB),
        Way(Address("", DEAD), JOB),
    ]


class _Flood(threading.Thread):
    """Sends what is mutated of every kind of message, in every way, and measures memory."""

    def __init__(self, rig: RabbitMQRig, messages: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._messages = messages
        self._rig = rig
        self._rng = random.Random(seed)
        descriptor = cast("Descriptor", pb.Envelope.DESCRIPTOR)
        self._seeds = {
            job: [parse(encode(_of(body, job)), descriptor) for body in BODIES.values()]
            for job in (JOB, "forged")
        }
        self.sent = 0
        self.error: BaseException | None = None
        self.memory: list[int] = []
        self.is_over = threading.Event()

    def run(self) -> None:
        try:
            self._send_all()
        except BaseException as error:
            self.error = error
        finally:
            self.is_over.set()

    def _send_all(self) -> None:
        ways = _ways()
        transport = self._rig.transport()
        publisher = transport.publisher()
        with RawPublisher(self._rig.direct) as raw:
            for number in range(self._messages):
                way = self._rng.choice(ways)
                wait = number % 20 == 0
                raw.publish(way.address, self._body(way.job), self._properties(), wait=wait)
                self.sent += 1
                if number % 250 == 249:  # and what is too large for one frame
                    bomb = HEAD + self._rng.choice(list(BOMBS.values()))()[: 8 << 20]
                    publisher.publish(way.address, Message(bomb)).result(PATIENCE)
                if number % (self._messages // 20) == 0:
                    self.memory.append(held_bytes())
        transport.close()

    def _body(self, job: str) -> bytes:
        rng, seeds = self._rng, self._seeds[job]
        if rng.random() < 0.05:
            return rng.randbytes(rng.randrange(200))
        return mutated(rng, rng.choice(seeds), seeds)[:100_000]

    def _properties(self) -> bytes:
        rng = self._rng
        way = rng.random()
        if way < 0.15:
            return rng.choice(list(ODD.values())).encoded
        if way < 0.4:
            name = task_id(JOB, rng.randrange(1, _ROUNDS), Phase.FIT, rng.choice(_CLIENTS))
            blob = rng.choice((f"{name}.{'0' * 16}", "f" * 64)).encode()
            headers = table(
                (b"x-flmq-blob", b"S" + len(blob).to_bytes(4, "big") + blob),
                (b"x-flmq-blob-index", b"I" + rng.randrange(2**31).to_bytes(4, "big")),
            )
            return properties(headers=headers, delivery_mode=1)
        return properties(delivery_mode=1, correlation_id=b"by hand")


def _of(body: Body, job: str) -> Body:
    names = {field.name for field in fields(body)}
    changed: dict[str, Any] = {}
    if "job" in names:
        changed["job"] = job
    if "client_id" in names:
        changed["client_id"] = "a"
    return replace(body, **changed)


class _Training(Nudge):
    """Trains on while the flood lasts, and does the last rounds after it."""

    flood: _Flood

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > _ROUNDS - 2:
            assert self.flood.is_over.wait(600)
        else:
            time.sleep(0.2)
        return super().fit(parameters, config)


def _undisturbed() -> bytes:
    rig = MemoryRig()
    federation = Federation(rig)
    federation.serve(*_CLIENTS)
    model = federation.run(fed_avg(len(_CLIENTS)), rounds=_ROUNDS).model()
    federation.close()
    rig.close()
    return model


@pytest.fixture
def rig(broker_url: str) -> Iterator[RabbitMQRig]:
    with fast_retries():
        made = RabbitMQRig(broker_url)
        yield made
        made.close()


@pytest.fixture
def aggregator(rig: RabbitMQRig, tmp_path: Path) -> Iterator[Callable[[], bool]]:
    """One beside the clients; whether it lives."""
    over = rig.transport()
    made = Aggregator(over, AggregatorOptions(state_dir=tmp_path, report_every=0.2))
    begun = threading.Event()
    done = in_thread(lambda: made.run(begun.set))
    assert begun.wait(PATIENCE), done.exception(0)
    yield lambda: not done.done()
    made.stop()
    done.result(PATIENCE)
    over.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("messages", [500, pytest.param(5_000, marks=pytest.mark.slow)])
def test_hostile_messages_change_nothing(
    rig: RabbitMQRig,
    aggregator: Callable[[], bool],
    caplog: pytest.LogCaptureFixture,
    messages: int,
) -> None:
    caplog.set_level(logging.WARNING)
    expected = _undisturbed()
    federation = Federation(rig)
    witness = rig.witness()
    witness.declare(models_topology() + own_models_topology("a"))
    flood = _Flood(rig, messages, seed=1)

    def training(context: Any) -> _Training:
        client = _Training(context.client_id)
        client.flood = flood
        return client

    federation.serve(*_CLIENTS, source=training)
    begun = time.monotonic()
    server = federation.run(fed_avg(len(_CLIENTS)), rounds=_ROUNDS, timeout=None)
    server.watch.wait_for(ClientOutcome)
    flood.start()
    assert flood.is_over.wait(600)
    assert flood.error is None, flood.error
    closed_meanwhile = len(server.watch.rounds())
    assert server.model() == expected
    took = time.monotonic() - begun
    words = server.watch.words()
    assert {client: set(words[client]) for client in _CLIENTS} == {
        client: {Outcome.ACCEPTED} for client in _CLIENTS
    }
    assert set(words) == set(_CLIENTS)
    assert closed_meanwhile >= 2, "a flood of one sender must not hold up the others"
    assert aggregator()
    assert not any(running.done.done() for running in federation.workers.values())
    assert flood.sent == messages
    print("MiB:", [memory >> 20 for memory in flood.memory], f"{took:.0f} s")
    print("rounds:", [round(each.seconds, 1) for each in server.watch.rounds()])
    grown = flood.memory[-1] - flood.memory[6]
    assert grown < _GROWTH, [memory >> 20 for memory in flood.memory]
    # Five readers, each with its allowance; besides what was put there by hand.
    laid_aside = witness.inspect_queue(DEAD)
    assert laid_aside is not None
    assert laid_aside.messages_ready <= 5 * (100 + 10 * took) + messages / 8
    said = [record.getMessage() for record in caplog.records]
    assert any(f"sent by key main.mallory.{JOB}" in line for line in said)
    assert not [line for line in said if "Traceback" in line or "could not be dealt with" in line]
    federation.close()
