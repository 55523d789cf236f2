"""An aggregator by hand, and a scene for it: it says what no aggregator would, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flmq.common import FitRes, Metrics, Parameters
from flmq.common.parameter import without_parameters
from flmq.journal.records import KeepPolicy
from flmq.messaging import Sender
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import FedAvg
from flmq.server.strategy.combine import WeightedMean
from flmq.transport import (
    PRESENCE,
    REPLIES,
    UPLOADS,
    Address,
    Transport,
    aggregator_key,
    aggregator_queue,
    aggregator_topology,
    federation_topology,
    reply_key,
)
from flmq.wire import (
    INLINE_BYTES,
    AggregateOrder,
    AggregatorReport,
    Asked,
    EntryOutcome,
    Failure,
    OrderInHand,
    PartialEntry,
    PartialSum,
    Receipt,
    Res,
    Task,
    decode,
    refer,
    size_of,
    upload_name,
)
from flmq.wire.entries import write_entries
from flmq.wire.failures import why_failed
from flmq.wire.regional import PARTIAL_TENSORS, bitmap, list_digest
from tests.end_to_end.federation import (
    JOB,
    Federation,
    Peer,
    RunningServer,
    fit_res,
    initial,
)
from tests.transport.rigs import PATIENCE

SITE = "main"


class Noting(FedAvg):
    """FedAvg that streams, and notes what it was given."""

    streams = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.results: list[tuple[str, int, Metrics]] = []
        self.failures: list[str] = []

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, Metrics]:
        self.results += [(client.cid, res.num_examples, res.metrics) for client, res in results]
        self.failures += [str(each) for each in failures]
        return super().aggregate_fit(server_round, results, failures)

    def state_dict(self) -> dict[str, Any]:
        return {}


class Adder:
    """The aggregator of the site ``main``, played by the test."""

    def __init__(self, transport: Transport, *, declares: bool = True) -> None:
        self.transport = transport
        transport.declare(federation_topology())
        if declares:
            transport.declare(aggregator_topology(SITE))
            self.consumer = transport.consumer([aggregator_queue(SITE)], prefetch=100)
        self.sender = Sender(transport.publisher())

    def report(self, *orders: OrderInHand) -> None:
        """Say that one is here, and what one has."""
        report = AggregatorReport(SITE, "by hand", (SITE,), orders, report_seconds=3600.0)
        address = Address(PRESENCE, aggregator_key(SITE))
        self.sender.send(address, report, mandatory=False).outcome.result(PATIENCE)

    def holds(self, order: AggregateOrder, *clients: str) -> None:
        """Report that the replies of these clients are here."""
        held = {ask.task_id for ask in order.asks if ask.client_id in clients}
        self.report(OrderInHand(order.task_id, list_digest(order.asks), bitmap(order.asks, held)))

    def next(self, kind: type[Any]) -> Any:
        """Take messages until one of a kind comes."""
        while True:
            delivery = self.consumer.receive(PATIENCE)
            assert delivery is not None, f"no {kind.__name__} came"
            self.consumer.ack(delivery)
            body = decode(delivery.message.body)
            if isinstance(body, kind):
                return body

    def order(self) -> AggregateOrder:
        """The next order."""
        order = self.next(AggregateOrder)
        assert isinstance(order, AggregateOrder)
        return order

    def receipt(self) -> Receipt:
        """The next receipt."""
        receipt = self.next(Receipt)
        assert isinstance(receipt, Receipt)
        return receipt

    def send(self, partial: PartialSum) -> None:
        """Send a partial sum as clients send replies: a large one in chunks."""
        key = reply_key(SITE, "!aggregator", JOB)
        if size_of(partial.parameters) <= INLINE_BYTES:
            self.sender.send(Address(REPLIES, key), partial).outcome.result(PATIENCE)
            return
        ref = replace(refer(partial.parameters), chunk_bytes=1 << 16)
        tensors, none = partial.parameters.tensors, Parameters([], PARTIAL_TENSORS)
        head = replace(partial, parameters=none, blob=ref)
        self.sender.send(Address(REPLIES, key), head).outcome.result(PATIENCE)
        name = upload_name(partial.task_id, ref)
        self.sender.send_blob(Address(UPLOADS, key), ref, name, tensors).outcome.result(PATIENCE)


def entry(ask: Asked, res: Res, **changes: Any) -> PartialEntry:
    """What an aggregator says of one reply."""
    failed = why_failed(res) is not None
    bare = res if isinstance(res, Failure) else without_parameters(res)
    assert isinstance(bare, FitRes | Failure)
    outcome = EntryOutcome.FAILED if failed else EntryOutcome.ACCEPTED
    return replace(PartialEntry(ask.task_id, ask.client_id, outcome, bare), **changes)


def summed(
    order: AggregateOrder,
    answers: dict[str, Res],
    *,
    entries: Sequence[PartialEntry] | None = None,
    accumulator: bytes | None = None,
    **changes: Any,
) -> PartialSum:
    """The sum of some clients' answers, in the order of their names, with changes."""
    asked = {ask.client_id: ask for ask in order.asks}
    mean = WeightedMean()
    for client, res in sorted(answers.items()):
        if isinstance(res, FitRes):
            mean.add(client, res)
    listed = entries or [entry(asked[c], res) for c, res in sorted(answers.items())]
    data = b"".join(mean.to_pieces()) if accumulator is None else accumulator
    partial = PartialSum(
        task_id=order.task_id,
        job=order.job,
        server_round=order.server_round,
        phase=order.phase,
        site=order.site,
        epoch=order.epoch,
        nonce=order.nonce,
        run=order.run,
        parameters=Parameters([data, write_entries(listed)], PARTIAL_TENSORS),
    )
    return replace(partial, **changes)


@dataclass
class Scene:
    """A server, three clients and their site's aggregator, all but the first by hand."""

    federation: Federation
    folder: Path | None
    strategy: Noting
    server: RunningServer
    peers: dict[str, Peer]
    adder: Adder

    @classmethod
    def of(
        cls,
        federation: Federation,
        folder: Path | None = None,
        *,
        declares: bool = True,
        model: Parameters | None = None,
        **options: Any,
    ) -> Scene:
        """Start it; the aggregator is heard before the first round."""
        peers = {name: federation.peer(name) for name in ("a", "b")}
        strategy = noting(model)
        server = cls.run(federation, folder, strategy, **options)
        adder = Adder(federation.rig.transport(), declares=declares)
        adder.report()
        peers["c"] = late = federation.peer("c")
        while True:  # it is greeted alone: the roll was called before it came
            delivery = late.consumer.receive(PATIENCE)
            assert delivery is not None, "nobody greets c"
            late._take(delivery)
            if delivery.message.correlation_id:
                break
        return cls(federation, folder, strategy, server, peers, adder)

    @staticmethod
    def run(
        federation: Federation, folder: Path | None, strategy: Any, **options: Any
    ) -> RunningServer:
        kept = KeepPolicy(replies="all")
        return federation.run(strategy, runs_dir=folder, keep=kept, **options)

    def again(self, **options: Any) -> RunningServer:
        """Start a server of the same run, after another one."""
        self.strategy = noting()
        self.server = self.run(self.federation, self.folder, self.strategy, **options)
        return self.server

    def tasks(self) -> dict[str, Task]:
        """The next task of each client."""
        return {name: peer.task() for name, peer in self.peers.items()}

    def reply(self, tasks: dict[str, Task], answers: dict[str, Res]) -> None:
        """Have every client answer by itself."""
        for name, peer in self.peers.items():
            peer.reply(tasks[name], answers[name])


def noting(model: Parameters | None = None) -> Noting:
    """The strategy of a scene."""
    return Noting(
        fraction_evaluate=0.0,
        min_fit_clients=3,
        min_available_clients=3,
        initial_parameters=model or initial(),
    )


def answers_of(tasks: dict[str, Task]) -> dict[str, Res]:
    """What each client answers: another model, and another weight."""
    steps = {"a": 0.25, "b": -1.5, "c": 1e-6}
    return {
        name: fit_res(task, lambda tensors, by=steps[name]: [t + t.dtype.type(by) for t in tensors],  # type: ignore[misc]
                      1 + place, metrics={"of": name})
        for place, (name, task) in enumerate(sorted(tasks.items()))
    }  # fmt: skip


def flat(answers: dict[str, Res]) -> bytes:
    """The bytes of the model that these answers make without aggregators."""
    mean = WeightedMean()
    for name, res in answers.items():
        if isinstance(res, FitRes):
            mean.add(name, res)
    return b"".join(mean.finish().parameters().tensors)
