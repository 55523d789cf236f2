"""An aggregator in a thread, and the server and the clients around it, played by the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flmq.common import FitRes, Parameters, ndarrays_to_parameters
from flmq.common.parameter import without_parameters
from flmq.common.phase import Phase
from flmq.messaging import Inbox, Sender
from flmq.region import AggregatorOptions
from flmq.region.app import Aggregator
from flmq.region.partials import open_partial
from flmq.server.replies.uploads import Uploaded, Uploads
from flmq.server.strategy.combine import WeightedMean
from flmq.transport import (
    MODELS,
    REGIONAL,
    REGIONAL_UPLOADS,
    TASKS,
    Address,
    Transport,
    aggregator_key,
    federation_topology,
    job_topology,
    models_topology,
    presence_queue,
    replies_queue,
    reply_key,
    uploads_queue,
)
from flmq.wire import (
    INLINE_BYTES,
    AggregateOrder,
    AggregatorReport,
    Asked,
    BlobChunk,
    Body,
    JobEnded,
    PartialEntry,
    PartialSum,
    Receipt,
    ReceiptOutcome,
    Reply,
    aggregator_name,
    derive_nonce,
    refer,
    size_of,
    task_id,
    upload_name,
)
from flmq.wire.blobs import BlobRef
from tests.end_to_end.federation import OK, in_thread
from tests.transport.rigs import PATIENCE, Rig

JOB, RUN, SECRET = "job", "run-1", b"s" * 32


def model(size: int = 5) -> Parameters:
    """What the clients of a round are sent."""
    rng = np.random.default_rng(4)
    return ndarrays_to_parameters([rng.normal(size=size).astype(np.float32), np.ones((1, 2))])


def fit_res(client: str, size: int = 5, examples: int | None = None) -> FitRes:
    """What a client makes of it: float32 of many magnitudes, so that order would matter."""
    rng = np.random.default_rng(sum(client.encode()))
    scale = np.float32(10.0 ** rng.integers(-6, 6))
    tensors = [rng.normal(size=size).astype(np.float32) * scale, rng.normal(size=(1, 2))]
    count = 1 + sum(client.encode()) % 7 if examples is None else examples
    return FitRes(OK, ndarrays_to_parameters(tensors), count, {"of": client})


def flat(clients: Sequence[str], size: int = 5) -> Parameters:
    """What the server would make of their replies without aggregators."""
    mean = WeightedMean()
    for client in clients:
        mean.add(client, fit_res(client, size))
    return mean.finish().parameters()


class Stage:
    """A server's and clients' messages by hand, on one rig."""

    def __init__(self, rig: Rig, site: str = "main") -> None:
        self.rig, self.site = rig, site
        self.transport = rig.transport()
        self.transport.declare(federation_topology(site) + job_topology(JOB) + models_topology())
        self.sender = Sender(self.transport.publisher())
        self.inbox = Inbox(
            self.transport.consumer(
                [uploads_queue(JOB), replies_queue(JOB), presence_queue(JOB)], prefetch=1000
            ),
            self.sender,
        )
        self.uploads = Uploads(None, None)
        self.heard: list[Body] = []
        self.running: list[tuple[Aggregator, Transport, Future[None]]] = []
        self.chunks: list[BlobChunk] = []

    # -- the aggregator ----------------------------------------------------------------------

    def aggregate(
        self,
        state_dir: Path | None = None,
        *,
        transport: Transport | None = None,
        unix_clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> Aggregator:
        """Start an aggregator, and wait until it is there."""
        given: dict[str, Any] = {"site": self.site, "state_dir": state_dir, "report_every": 0.2}
        chosen = AggregatorOptions(**{**given, **options})
        over = transport or self.rig.transport()
        aggregator = Aggregator(over, chosen, unix_clock=unix_clock)
        begun = threading.Event()
        done = in_thread(lambda: aggregator.run(begun.set))
        self.running.append((aggregator, over, done))
        until = time.monotonic() + PATIENCE
        while not begun.wait(0.02) and not done.done():
            assert time.monotonic() < until, "the aggregator does not begin"
        if done.done():
            done.result()
        return aggregator

    def stop(self) -> None:
        """End all aggregators in order, and raise what they ended by."""
        running, self.running = self.running, []
        for aggregator, over, done in running:
            aggregator.stop()
            done.result(PATIENCE)
            over.close()

    def close(self) -> None:
        """End everything, whatever it ends by."""
        for aggregator, _, done in self.running:
            aggregator.stop()
            done.exception(PATIENCE)
        self.uploads.close()

    # -- the server --------------------------------------------------------------------------

    def order(
        self,
        clients: Sequence[str],
        *,
        round_: int = 1,
        site: str = "",
        size: int = 5,
        **but: Any,
    ) -> AggregateOrder:
        """Make an order to add up these clients' replies."""
        site = site or self.site
        number = task_id(JOB, round_, Phase.FIT, aggregator_name(site))
        order = AggregateOrder(
            number,
            JOB,
            round_,
            Phase.FIT,
            site,
            7,
            derive_nonce(SECRET, number),
            RUN,
            model(size),
            tuple(self.asked(client, round_) for client in clients),
        )
        if size_of(order.parameters) > INLINE_BYTES:
            ref = refer(order.parameters, published_unix_ms=int(time.time() * 1000))
            self.sender.send_blob(Address(MODELS, JOB), ref, ref.digest, order.parameters.tensors)
            order = replace(order, parameters=Parameters([], "numpy.ndarray"), model=ref)
        return replace(order, **but)

    @staticmethod
    def asked(client: str, round_: int = 1, site: str = "") -> Asked:
        """What an order says of one client."""
        number = task_id(JOB, round_, Phase.FIT, client)
        return Asked(number, client, derive_nonce(SECRET, number), site=site)

    def send_order(self, order: AggregateOrder) -> AggregateOrder:
        """Send an order, and return it."""
        self.tell(order, order.site)
        return order

    def tell(self, body: Body, site: str = "") -> None:
        """Send anything to the aggregator."""
        self.sender.send(Address(TASKS, aggregator_key(site or self.site)), body).outcome.result(
            PATIENCE
        )

    def receipt(self, order: AggregateOrder, outcome: ReceiptOutcome, reason: str = "") -> None:
        """Tell the aggregator what became of its partial sum."""
        name = order.client_id
        head = order.task_id, order.job, order.server_round, order.phase, name
        self.tell(Receipt(*head, outcome, reason), order.site)

    def end_job(self) -> None:
        """Say that the job is over."""
        self.tell(JobEnded(JOB, 7, "done", RUN))

    # -- the clients -------------------------------------------------------------------------

    def reply(self, client: str, round_: int = 1, **but: Any) -> Reply:
        """What a client replies."""
        ask = self.asked(client, round_)
        res = but.pop("res", None) or fit_res(client)
        reply = Reply(ask.task_id, JOB, round_, Phase.FIT, client, 7, ask.nonce, 0.5, res)
        return replace(reply, **but)

    def send_reply(self, reply: Reply, *, site: str = "", chunk_bytes: int = 0) -> None:
        """Send a reply by way of the aggregator; with ``chunk_bytes``, its parameters in chunks."""
        key = reply_key(site or self.site, reply.client_id, JOB)
        if not chunk_bytes:
            self.sender.send(Address(REGIONAL, key), reply).outcome.result(PATIENCE)
            return
        assert isinstance(reply.res, FitRes)
        ref = refer(reply.res.parameters, chunk_bytes=chunk_bytes)
        head = replace(reply, res=without_parameters(reply.res), blob=ref)
        self.sender.send(Address(REGIONAL, key), head).outcome.result(PATIENCE)
        name, address = upload_name(reply.task_id, ref), Address(REGIONAL_UPLOADS, key)
        self.sender.send_blob(address, ref, name, reply.res.parameters.tensors).outcome.result(
            PATIENCE
        )

    # -- what comes --------------------------------------------------------------------------

    def wait_for(
        self,
        kind: type[Body] | type[BlobChunk],
        condition: Callable[[object], bool] = lambda _: True,
        patience: float = PATIENCE,
    ) -> object:
        """Wait for a message to the server; of earlier ones, none is looked at again."""
        until = time.monotonic() + patience
        while (left := until - time.monotonic()) > 0:
            incoming = self.inbox.receive(min(left, 0.1))
            if incoming is None:
                continue
            self.inbox.ack(incoming)
            body = incoming.body
            if isinstance(body, BlobChunk):
                self.chunks.append(body)
            else:
                self.heard.append(body)
            if isinstance(body, kind) and condition(body):
                return body
        raise AssertionError(f"no such {kind.__name__} came, but {[type(b) for b in self.heard]}")

    def silence(self, kind: type[Body], seconds: float = 0.5) -> None:
        """See that no such message comes."""
        try:
            came = self.wait_for(kind, patience=seconds)
        except AssertionError:
            return
        raise AssertionError(f"{came} came")

    def partial(self, order: AggregateOrder) -> tuple[PartialSum, Parameters]:
        """Wait for an order's partial sum, with its tensors."""
        partial = self.wait_for(
            PartialSum,
            lambda body: body.task_id == order.task_id,  # type: ignore[attr-defined]
        )
        assert isinstance(partial, PartialSum)
        if partial.blob is None:
            return partial, partial.parameters
        return partial, self._follow(partial, partial.blob)

    def _follow(self, partial: PartialSum, ref: BlobRef) -> Parameters:
        done = self.uploads.begin(partial, ref, 0)
        name = upload_name(partial.task_id, ref)
        for early in [chunk for chunk in self.chunks if chunk.name == name]:
            done = done or self.uploads.add(early.name, early.index, early.data)
        while done is None:
            chunk = self.wait_for(BlobChunk)
            assert isinstance(chunk, BlobChunk)
            if chunk.name == name:
                done = self.uploads.add(chunk.name, chunk.index, chunk.data)
        assert isinstance(done, Uploaded), done
        assert isinstance(done.reply, PartialSum)
        return done.reply.parameters

    def summed(self, order: AggregateOrder) -> tuple[Parameters, dict[str, PartialEntry]]:
        """Wait for an order's partial sum: its mean, and its entries by client."""
        _, parameters = self.partial(order)
        mean, entries = open_partial(order, parameters, ())
        return mean.finish().parameters(), {entry.client_id: entry for entry in entries}

    def report(
        self, condition: Callable[[AggregatorReport], bool] = lambda _: True
    ) -> AggregatorReport:
        """Wait for a report."""
        found = self.wait_for(AggregatorReport, condition)  # type: ignore[arg-type]
        assert isinstance(found, AggregatorReport)
        return found
