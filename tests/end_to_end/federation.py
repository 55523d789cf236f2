"""Federations in this process: a server and workers in threads over one rig, and peers by hand.

A `Peer` is a client that speaks flmq's messages itself, so that it can say what no client would.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from flmq.client import NumPyClient
from flmq.client.factory import ClientSource
from flmq.client.serving.worker import Worker, WorkerOptions
from flmq.common import (
    Code,
    Config,
    FitIns,
    FitRes,
    Metrics,
    NDArrays,
    Parameters,
    Scalar,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.journal.records import KeepPolicy
from flmq.messaging import Sender
from flmq.observe.bus import EventBus
from flmq.observe.events import ClientOutcome, Observer, Outcome, RoundClosed, RunEnded, RunEvent
from flmq.server.asks.options import CoordinatorOptions
from flmq.server.client_proxy import ClientProxy
from flmq.server.components import ServerAppComponents
from flmq.server.history import History
from flmq.server.lifecycle.run import run_server
from flmq.server.options import ResumePolicy, RunOptions
from flmq.server.rhythm.callbacks import Callback
from flmq.server.secure.keys import JobKeys
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import FedAvg, LateReplies
from flmq.transport import (
    DEAD,
    PRESENCE,
    REPLIES,
    Address,
    Consumer,
    Delivery,
    Message,
    PublishOutcome,
    Transport,
    client_queue,
    client_topology,
    federation_topology,
    presence_key,
    reply_key,
)
from flmq.wire import (
    Body,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    Res,
    RollCall,
    Task,
    decode,
)
from tests.transport.rigs import PATIENCE, Rig

OK = Status(Code.OK, "Success")
JOB = "job"

_T = TypeVar("_T")


class Nudge(NumPyClient):
    """Adds to each tensor what depends on the client and the values: float32, order matters."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.weight = 1 + sum(client_id.encode()) % 7

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        return self.nudged(parameters), self.weight, {"weight": float(self.weight)}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        loss = float(sum(np.abs(tensor).sum() for tensor in parameters))
        return loss, self.weight, {"accuracy": 1 / self.weight}

    def nudged(self, parameters: NDArrays) -> NDArrays:
        step = np.float32(10.0 ** -(sum(self.client_id.encode()) % 5))
        return [np.asarray(p * np.float32(0.9) + step, p.dtype) for p in parameters]


def nudge(context: Any) -> Nudge:
    """Make the client of a context."""
    return Nudge(context.client_id)


def initial(size: int = 5) -> Parameters:
    """A model of ``size`` and two more numbers."""
    rng = np.random.default_rng(1)
    return ndarrays_to_parameters(
        [rng.normal(size=size).astype(np.float32), np.array([[1.0, -1.0]], np.float32)]
    )


class Keeping(FedAvg):
    """FedAvg that keeps the failures that it is told of."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.failures: list[tuple[ClientProxy, FitRes] | BaseException] = []

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, Metrics]:
        self.failures += failures
        return super().aggregate_fit(server_round, results, failures)


def fed_avg(clients: int, **options: Any) -> Keeping:
    """FedAvg over exactly all of so many clients, without evaluation, unless said otherwise."""
    defaults: dict[str, Any] = {
        "fraction_evaluate": 0.0,
        "min_fit_clients": clients,
        "min_evaluate_clients": clients,
        "min_available_clients": clients,
        "initial_parameters": initial(),
    }
    return Keeping(**{**defaults, **options})


class Watch:
    """An observer that keeps every event, and lets one wait for one."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: RunEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: type[_T]) -> list[_T]:
        """All events of a kind so far."""
        with self._changed:
            return [event for event in self.events if isinstance(event, kind)]

    def wait_for(
        self, kind: type[_T], condition: Callable[[_T], bool] = lambda _: True, count: int = 1
    ) -> _T:
        """Wait until ``count`` events of a kind fulfil a condition; the last of them comes back."""

        def found() -> list[_T]:
            return [e for e in self.events if isinstance(e, kind) and condition(e)]

        with self._changed:
            met = self._changed.wait_for(lambda: len(found()) >= count, PATIENCE)
            assert met, f"no {count} such {kind.__name__} among {self.events}"
            return found()[count - 1]

    def words(self, server_round: int | None = None) -> dict[str, list[Outcome]]:
        """Client id: the words said of it, in order."""
        words: dict[str, list[Outcome]] = {}
        for outcome in self.of(ClientOutcome):
            if server_round in (None, outcome.server_round):
                words.setdefault(outcome.client_id, []).append(outcome.outcome)
        return words

    def rounds(self) -> list[RoundClosed]:
        """The rounds that have closed."""
        return self.of(RoundClosed)

    def model(self) -> bytes:
        """The final model's bytes, once the run has ended well."""
        ended = self.wait_for(RunEnded)
        assert ended.parameters is not None, ended
        return b"".join(ended.parameters.tensors)


@dataclass
class RunningServer:
    """A server in a thread."""

    watch: Watch
    result: Future[History]

    def history(self, timeout: float = 60.0) -> History:
        """Wait for the end; what ended the run is raised."""
        return self.result.result(timeout)

    def model(self) -> bytes:
        """Wait for the end, and for the model's bytes."""
        self.history()
        return self.watch.model()


@dataclass
class RunningWorker:
    """A worker in a thread."""

    worker: Worker
    done: Future[None]

    def stop(self) -> None:
        """End it, and raise what it ended by."""
        self.worker.stop()
        self.done.result(PATIENCE)


@dataclass
class Federation:
    """Everything over one rig; `close` ends it all, and tells of what went wrong."""

    rig: Rig
    workers: dict[str, RunningWorker] = field(default_factory=dict)
    servers: list[RunningServer] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)

    def serve(
        self,
        *client_ids: str,
        source: ClientSource = nudge,
        properties: Mapping[str, Scalar] | None = None,
        options: WorkerOptions | None = None,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Start a worker for each client id, whose machine's clock is ``unix_clock``."""
        for client_id in client_ids:
            self.workers[client_id] = self.worker(
                {client_id: properties or {}}, source, options, unix_clock=unix_clock
            )

    def worker(
        self,
        clients: Mapping[str, Mapping[str, Scalar]],
        source: ClientSource,
        options: WorkerOptions | None = None,
        transport: Transport | None = None,
        *,
        unix_clock: Callable[[], float] = time.time,
    ) -> RunningWorker:
        """Start one worker for some client ids."""
        over = self.rig.transport() if transport is None else transport
        chosen = options or WorkerOptions(heartbeat=1.0)
        worker = Worker(over, source, clients, chosen, unix_clock=unix_clock)
        return RunningWorker(worker, in_thread(worker.run))

    def run(
        self,
        strategy: Any = None,
        rounds: int = 1,
        timeout: float | None = 30.0,
        *,
        job: str = JOB,
        config: ServerConfig | None = None,
        server: Any = None,
        client_manager: Any = None,
        seed: int | None = 7,
        heartbeat: float = 1.0,
        max_reply_bytes: int | None = None,
        observers: Sequence[Observer] | EventBus = (),
        runs_dir: Path | None = None,
        keep: KeepPolicy | None = None,
        late: LateReplies | None = None,
        resume: ResumePolicy = ResumePolicy.SAME,
        clients: int = 0,
        clients_allowed: frozenset[str] | None = None,
        callbacks: Sequence[Callback] = (),
        aggregators: bool = True,
        aggregator_patience: float = 60.0,
        sites: tuple[str, ...] = ("main",),
        protection: JobKeys | None = None,
        speakers: Mapping[str, Collection[str]] | None = None,
    ) -> RunningServer:
        """Start a server."""
        watch, bus = Watch(), EventBus.of(observers)
        bus.attach(watch)
        parts = ServerAppComponents(
            server=server,
            config=config or ServerConfig(rounds, timeout),
            strategy=strategy,
            client_manager=client_manager,
            callbacks=callbacks,
        )
        options = RunOptions(
            job=job,
            seed=seed,
            coordinator=CoordinatorOptions(
                heartbeat=heartbeat,
                max_reply_bytes=max_reply_bytes,
                clients_allowed=clients_allowed,
                aggregators=aggregators,
                aggregator_patience=aggregator_patience,
                sites=sites,
                protection=protection,
                speakers=speakers or {},
            ),
            observers=bus,
            runs_dir=runs_dir,
            keep=keep or KeepPolicy(),
            late=late,
            resume=resume,
            clients=clients,
        )
        transport = self.rig.transport()

        def run() -> History:
            try:
                return run_server(transport, parts, options, bus=bus, broker="test")
            finally:
                bus.close()
                transport.close()

        running = RunningServer(watch, in_thread(run))
        self.servers.append(running)
        for peer in self.peers:
            peer.greet(running)
        return running

    def peer(self, client_id: str) -> Peer:
        """A client by hand, which says hello now and to each server that starts."""
        peer = Peer(self.rig.transport(), client_id)
        self.peers.append(peer)
        peer.hello()
        return peer

    def dead(self, count: int) -> list[Delivery]:
        """Take ``count`` dead letters."""
        transport = self.rig.transport()
        transport.declare(federation_topology())
        consumer = transport.consumer([DEAD], prefetch=100)
        incomings = []
        for number in range(count):
            incoming = consumer.receive(PATIENCE)
            assert incoming is not None, f"{number} of {count} dead letters came"
            consumer.ack(incoming)
            incomings.append(incoming)
        consumer.close()
        return incomings

    def close(self) -> None:
        """End everything."""
        for running in self.workers.values():
            running.worker.stop()
        for running in self.workers.values():
            running.done.exception(PATIENCE)
        for peer in self.peers:
            peer.transport.close()


class Peer:
    """A client that is played by the test."""

    def __init__(self, transport: Transport, client_id: str) -> None:
        self.client_id = client_id
        self.transport = transport
        transport.declare(federation_topology() + client_topology(client_id))
        self.publisher = transport.publisher()
        self.sender = Sender(self.publisher)
        self.consumer: Consumer
        self._aside: deque[Body] = deque()
        """What came of a server while it was greeted."""
        self.consume()

    def consume(self) -> None:
        """Take what comes, from now on, or again."""
        self.consumer = self.transport.consumer([client_queue(self.client_id)], prefetch=100)

    def hello(
        self,
        kind: PresenceKind = PresenceKind.HELLO,
        heartbeat: float = 3600.0,
        greeting: str = "",
    ) -> None:
        """Say that one is here, in answer to a ``greeting`` or unasked."""
        address = Address(PRESENCE, presence_key("main", self.client_id))
        body = self.presence(kind, heartbeat)
        sent = self.sender.send(address, body, mandatory=False, correlation_id=greeting)
        assert sent.outcome.result(PATIENCE) is PublishOutcome.CONFIRMED

    def presence(
        self, kind: PresenceKind = PresenceKind.HELLO, heartbeat: float = 3600.0
    ) -> Presence:
        """What one says of oneself."""
        return Presence(
            kind=kind,
            client_id=self.client_id,
            site="main",
            instance="by hand",
            heartbeat_seconds=heartbeat,
        )

    def send(self, address: Address, body: Body, *, mandatory: bool = True) -> None:
        """Send an envelope, and see it confirmed."""
        sent = self.sender.send(address, body, mandatory=mandatory)
        assert sent.outcome.result(PATIENCE) is PublishOutcome.CONFIRMED or not mandatory

    def raw(
        self, address: Address, content: bytes, headers: Mapping[str, str | int] | None = None
    ) -> None:
        """Send bytes, and see them confirmed."""
        message = Message(content, headers=headers or {})
        outcome = self.publisher.publish(address, message).result(PATIENCE)
        assert outcome is PublishOutcome.CONFIRMED

    def greet(self, server: RunningServer | None = None) -> None:
        """Say hello when the roll is called, and answer the greeting, unless ``server`` ends."""
        called, greeted, begun = False, False, time.monotonic()
        receipts: list[Body] = []
        while not (called and greeted) and not (server is not None and server.result.done()):
            assert time.monotonic() - begun < PATIENCE, f"nobody greets {self.client_id}"
            delivery = self.consumer.receive(0.1)
            if delivery is None:
                continue
            body = self._take(delivery)
            if not isinstance(body, RollCall):
                self._aside.append(body)
                receipts += [body] if isinstance(body, Receipt) else []
            elif delivery.message.correlation_id:
                greeted = True
            elif not called:
                called = True
                # What an earlier server had said, but for receipts: a new one sends those of
                # replies that it finds in its queue before it calls the roll.
                self._aside = deque(receipts)
                self.hello()

    def next(self, kind: type[_T]) -> _T:
        """Take messages until one of a kind comes."""
        while True:
            if self._aside:
                body = self._aside.popleft()
            else:
                delivery = self.consumer.receive(PATIENCE)
                assert delivery is not None, f"no {kind.__name__} came to {self.client_id}"
                body = self._take(delivery)
            if isinstance(body, kind):
                return body

    def _take(self, delivery: Delivery) -> Body:
        """Take a message; a greeting is answered, which is not to be forgotten."""
        self.consumer.ack(delivery)
        if delivery.message.correlation_id == self.presence().instance:
            self.hello(greeting=delivery.message.message_id)
        return decode(delivery.message.body)

    def task(self) -> Task:
        """The next task."""
        return self.next(Task)

    def receipt(self) -> Receipt:
        """The next receipt that is no good news."""
        while (receipt := self.next(Receipt)).outcome is ReceiptOutcome.ACCEPTED:
            pass
        return receipt

    def reply(self, task: Task, res: Res | None = None, **changes: Any) -> Reply:
        """Answer a task, by default well."""
        reply = self.answer(task, res, **changes)
        self.send(self.reply_address(task.job), reply)
        return reply

    def answer(self, task: Task, res: Res | None = None, **changes: Any) -> Reply:
        """The answer to a task, to be sent."""
        reply = Reply(
            task_id=task.task_id,
            job=task.job,
            server_round=task.server_round,
            phase=task.phase,
            client_id=self.client_id,
            epoch=task.epoch,
            nonce=task.nonce,
            seconds=0.0,
            res=fit_res(task) if res is None else res,
        )
        return replace(reply, **changes)

    def reply_address(self, job: str = JOB) -> Address:
        """Where its replies go."""
        return Address(REPLIES, reply_key("main", self.client_id, job))


def fit_res(
    task: Task,
    change: Callable[[NDArrays], Sequence[Any]] = lambda tensors: tensors,
    num_examples: int = 1,
    **fields: Any,
) -> FitRes:
    """What a well-behaved client gives back, with changes."""
    assert isinstance(task.ins, FitIns)
    tensors = change(parameters_to_ndarrays(task.ins.parameters))
    parameters = ndarrays_to_parameters([np.asarray(tensor) for tensor in tensors])
    return replace(FitRes(OK, parameters, num_examples, {}), **fields)


def in_thread(work: Callable[[], _T]) -> Future[_T]:
    """Run ``work`` in a thread of its own."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="test", daemon=True).start()
    return future
