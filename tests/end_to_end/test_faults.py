"""Connections cut, brokers gone in the middle of a round: the run goes on, with the same bits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from flmq.broker.node import PrivateNode
from flmq.common import Config, Metrics, NDArrays
from flmq.observe.events import ClientOutcome, Outcome, RoundCounts
from flmq.testing import fast_retries
from flmq.transport import client_queue
from tests.end_to_end.federation import Federation, Nudge, RunningServer, fed_avg
from tests.transport.rigs import PATIENCE, MemoryRig, RabbitMQRig, Rig

NAMES = ("a", "b", "c")


class Gates:
    """Holds clients in their training until the test lets them go."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.calls: list[str] = []

    def pass_through(self, client_id: str) -> None:
        self.calls.append(client_id)
        self.inside.release()
        assert self.go.acquire(timeout=4 * PATIENCE)

    def wait_until_inside(self, clients: int) -> None:
        for _ in range(clients):
            assert self.inside.acquire(timeout=4 * PATIENCE)

    def let_go(self, clients: int) -> None:
        for _ in range(clients):
            self.go.release()


def _gated(gates: Gates) -> Any:
    class Gated(Nudge):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            gates.pass_through(self.client_id)
            return super().fit(parameters, config)

    return lambda context: Gated(context.client_id)


def _undisturbed(rounds: int) -> bytes:
    rig = MemoryRig()
    federation = Federation(rig)
    federation.serve(*NAMES)
    model = federation.run(fed_avg(3, fraction_evaluate=1.0), rounds=rounds).model()
    federation.close()
    rig.close()
    return model


def _with_a_fault_in_each_round(
    federation: Federation, faults: list[Callable[[], None]], gates: Gates
) -> RunningServer:
    """Run a round for each fault, which comes while one client's reply is there and two train."""
    federation.serve(*NAMES, source=_gated(gates))
    strategy = fed_avg(3, fraction_evaluate=1.0)
    server = federation.run(strategy, rounds=len(faults), timeout=None)
    for server_round, fault in enumerate(faults, start=1):
        gates.wait_until_inside(3)
        gates.let_go(1)
        server.watch.wait_for(
            ClientOutcome,
            lambda o, r=server_round: o.server_round == r,  # type: ignore[misc]
        )
        fault()
        gates.let_go(2)
    server.history()
    return server


def _assert_undisturbed(server: RunningServer, gates: Gates, rounds: int) -> None:
    assert server.watch.model() == _undisturbed(rounds)
    assert [r.fit.accepted for r in server.watch.rounds()] == [3] * rounds
    assert sorted(gates.calls) == sorted(NAMES * rounds)  # nobody trained twice


def test_cut_connections_change_no_bit(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    rig, gates = federation.rig, Gates()
    caplog.set_level(logging.INFO)

    def down_and_up() -> None:
        rig.down()
        gates.let_go(1)  # a reply is made while there is no broker
        gates.go.acquire()
        rig.up()

    faults = [rig.cut, down_and_up, lambda: (rig.cut(), rig.cut(), None)[2]]
    server = _with_a_fault_in_each_round(federation, faults, gates)
    _assert_undisturbed(server, gates, 3)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("lost", ["acks", "confirms"])
def test_lost_acks_and_confirms_bring_nothing_twice(
    memory_federation: Federation, lost: str
) -> None:
    """Whoever waits for them does again after the next loss what was done already."""
    assert isinstance(memory_federation.rig, MemoryRig)
    broker, gates = memory_federation.rig.broker, Gates()
    memory_federation.serve(*NAMES, source=_gated(gates))
    server = memory_federation.run(fed_avg(3, fraction_evaluate=1.0), rounds=2, timeout=None)
    gates.wait_until_inside(3)
    broker.lose_acks() if lost == "acks" else broker.lose_confirms()
    gates.let_go(3)
    server.watch.wait_for(ClientOutcome, count=3)
    broker.drop_connections()
    gates.wait_until_inside(3)
    gates.let_go(3)
    server.history()
    _assert_undisturbed(server, gates, 2)
    words = [word for said in server.watch.words().values() for word in said]
    assert set(words) <= {Outcome.ACCEPTED, Outcome.DUPLICATE}


def test_a_worker_whose_connection_breaks_is_not_thought_another(rig: Rig) -> None:
    """Its queue is its own again after the loss, and it ends in order."""
    federation = Federation(rig)
    federation.serve("a")
    federation.run(fed_avg(1), job="first").history()
    for _ in range(3):
        rig.cut()
    federation.run(fed_avg(1), job="second").history()
    federation.workers["a"].stop()
    witness = rig.witness()
    info = witness.inspect_queue(client_queue("a"))
    assert info is not None
    assert info.consumers == 0
    federation.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_of_the_broker_in_mid_round_changes_no_bit(
    private_node: PrivateNode, how: str
) -> None:
    gates = Gates()
    with fast_retries():
        rig = RabbitMQRig(private_node.url)
        federation = Federation(rig)

        def restart() -> None:
            # RabbitMQ 3.10 loses its stream coordinator for good when it is killed before the
            # table that names it has been written, within a second of the first stream ever.
            private_node.evaluate("[dets:sync(T) || T <- dets:all()].")
            private_node.stop() if how == "stop" else private_node.kill()
            private_node.start()

        server = _with_a_fault_in_each_round(federation, [restart], gates)
        _assert_undisturbed(server, gates, 1)
        assert server.watch.rounds()[0].evaluate == RoundCounts(asked=3, accepted=3)
        federation.close()
        rig.close()
