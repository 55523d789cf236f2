"""Whom a round waits for, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flmq.common import (
    NDArrays,
    Scalar,
)
from flmq.common.errors import (
    ZeroWeight,
)
from flmq.observe.events import (
    ClientPresence,
    Outcome,
    PhaseClosed,
    PhaseOpened,
    RoundCounts,
    RunEnded,
)
from flmq.server import ServerConfig, SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.presence.watcher import PresenceWatcher
from flmq.transport import (
    client_queue,
    client_topology,
    presence_queue,
    replies_queue,
)
from flmq.wire import Failure, FailureKind, JobEnded, PresenceKind, ReceiptOutcome, Task, decode
from tests.end_to_end.federation import Federation, Keeping, fed_avg, initial
from tests.transport.rigs import eventually

INITIAL = b"".join(initial().tensors)


def _failed(reason: str = "no data") -> Failure:
    return Failure(FailureKind.EXCEPTION, "ValueError", reason)


def test_a_silent_client_is_waited_for_until_the_deadline(federation: Federation) -> None:
    strategy = fed_avg(2)
    federation.serve("a")
    peer = federation.peer("silent")
    server = federation.run(strategy, timeout=1.0)
    peer.task()
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=1, silent=1)
    closed = server.watch.wait_for(PhaseClosed)
    assert closed.reason == "deadline"
    assert 1.0 <= closed.seconds < 5.0
    (failure,) = strategy.failures
    assert isinstance(failure, ClientFailure)
    assert (failure.client_id, failure.outcome) == ("silent", Outcome.SILENT)


def test_a_task_that_came_to_nobody_in_time_does_not_wait_for_its_client(
    federation: Federation,
) -> None:
    """With the round, its tasks expire in the queues of clients that are away."""
    federation.serve("a")
    peer = federation.peer("away")
    server = federation.run(fed_avg(2), timeout=1.0)
    peer.consumer.close()
    server.history()
    assert server.watch.words()["away"] == [Outcome.SILENT]
    peer.consume()
    while not isinstance(left := peer.next(object), JobEnded):
        assert not isinstance(left, Task)


def test_a_round_closes_at_its_target_and_the_others_are_late(federation: Federation) -> None:
    peers = [federation.peer(name) for name in ("a", "b", "c")]
    config = ServerConfig(num_rounds=2, round_timeout=None, target_results=2)
    server = federation.run(fed_avg(3), config=config)
    tasks = [peer.task() for peer in peers]
    for peer, task in zip(peers[:2], tasks[:2], strict=True):
        peer.reply(task)
    second = [peer.task() for peer in peers]  # the next round begins without the third
    peers[2].reply(tasks[2])
    assert peers[2].receipt().outcome is ReceiptOutcome.LATE
    for peer, task in zip(peers[1:], second[1:], strict=True):
        peer.reply(task)
    server.history()
    counts = RoundCounts(asked=3, accepted=2, silent=1)
    assert [r.fit for r in server.watch.rounds()] == [counts, counts]
    assert {p.reason for p in server.watch.of(PhaseClosed)} == {"enough answered (2)"}


def test_too_few_results_leave_the_model_and_the_run_goes_on(federation: Federation) -> None:
    peers = [federation.peer(name) for name in ("a", "b")]
    config = ServerConfig(num_rounds=2, round_timeout=None, min_results=2)
    server = federation.run(fed_avg(2), config=config)
    for result in (_failed(), None):
        for peer, res in zip(peers, (None, result), strict=True):
            peer.reply(peer.task(), res)
    server.history()
    first, second = server.watch.rounds()
    assert "1 results, 2 needed: the model stays as it was" in first.note
    assert "client b: failed: ValueError: no data" in first.note
    assert second.note == ""
    assert second.fit.accepted == 2


def test_a_round_in_which_all_fail_leaves_the_model(federation: Federation) -> None:
    peers = [federation.peer(name) for name in ("a", "b")]
    server = federation.run(fed_avg(2), rounds=2, timeout=None)
    for _ in range(2):
        for peer in peers:
            peer.reply(peer.task(), _failed())
    server.history()
    assert server.watch.model() == INITIAL
    assert [r.fit.failed for r in server.watch.rounds()] == [2, 2]
    assert all("the model stays as it was" in r.note for r in server.watch.rounds())


def test_a_client_without_a_queue_is_not_waited_for(federation: Federation) -> None:
    class Gone(SimpleClientManager):
        """Believes that a client is there which has never been."""

        def all(self) -> dict[str, ClientProxy]:
            return super().all()

        def sample(self, num_clients: int, *args: Any, **kwargs: Any) -> list[ClientProxy]:
            (proxy,) = super().sample(1)
            ghost = type(proxy)("ghost", proxy._phase_runner)  # type: ignore[attr-defined, call-arg]
            return [proxy, ghost]

    strategy = fed_avg(1)
    federation.serve("a")
    server = federation.run(strategy, timeout=None, client_manager=Gone())
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=1, unroutable=1)
    (failure,) = strategy.failures
    assert isinstance(failure, ClientFailure)
    assert (failure.client_id, failure.outcome) == ("ghost", Outcome.UNROUTABLE)


def test_a_client_that_is_there_is_asked_again_while_it_has_no_queue(
    federation: Federation,
) -> None:
    """It was deleted under its client, who makes it anew."""
    peer = federation.peer("peer")
    server = federation.run(fed_avg(1), rounds=2, timeout=None)
    first = peer.task()
    peer.consumer.close()
    peer.transport.delete_queue(client_queue("peer"))
    peer.reply(first)
    server.watch.wait_for(PhaseOpened, lambda opened: opened.server_round == 2)
    peer.transport.declare(client_topology("peer"))
    peer.consume()
    second = peer.task()
    assert second.server_round == 2
    peer.reply(second)
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=1, accepted=1)] * 2


def test_a_round_that_asks_nobody_is_noted(memory_federation: Federation) -> None:
    memory_federation.serve("a")
    strategy = fed_avg(1)
    strategy.configure_fit = lambda *_: []  # type: ignore[method-assign]
    server = memory_federation.run(strategy, rounds=2)
    server.history()
    assert [r.fit.asked for r in server.watch.rounds()] == [0, 0]
    assert server.watch.rounds()[0].note == "nobody was asked: configure_fit chose no clients"
    assert server.watch.model() == INITIAL


def test_an_aggregation_that_cannot_be_leaves_the_model(memory_federation: Federation) -> None:
    class Weightless(Keeping):
        def aggregate_fit(self, *args: Any) -> Any:
            raise ZeroWeight("every weight is zero")

    memory_federation.serve("a")
    strategy = Weightless(
        fraction_evaluate=0.0,
        min_fit_clients=1,
        min_available_clients=1,
        initial_parameters=initial(),
    )
    server = memory_federation.run(strategy, rounds=2)
    server.history()
    assert [r.note for r in server.watch.rounds()] == [
        "the model stays as it was: every weight is zero"
    ] * 2
    assert server.watch.model() == INITIAL


def test_an_error_of_the_strategy_ends_the_run_with_its_queues(federation: Federation) -> None:
    class Wrong(Exception):
        pass

    def wrong(server_round: int, tensors: NDArrays, config: dict[str, Scalar]) -> Any:
        if server_round == 1:
            raise Wrong("evaluate_fn is broken")

    federation.serve("a")
    server = federation.run(fed_avg(1, evaluate_fn=wrong))
    with pytest.raises(Wrong, match="evaluate_fn is broken"):
        server.history()
    assert server.watch.wait_for(RunEnded).error == "evaluate_fn is broken"
    witness = federation.rig.witness()
    eventually(lambda: witness.inspect_queue(replies_queue("job")) is None)
    eventually(lambda: witness.inspect_queue(presence_queue("job")) is None)


@pytest.mark.parametrize(("few", "outlives"), [(1, True), (0, False)])
def test_the_end_is_told_to_thousands_by_a_message_that_takes_no_file_of_their_queues(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch, few: int, outlives: bool
) -> None:
    """RabbitMQ would have to open one of each queue at once."""
    monkeypatch.setattr("flmq.server.asks.coordinator._FEW_CLIENTS", few)
    peer = memory_federation.peer("peer")
    server = memory_federation.run(fed_avg(1), timeout=None)
    peer.reply(peer.task())
    server.history()
    while (delivery := peer.consumer.receive(10.0)) is not None:
        if isinstance(decode(delivery.message.body), JobEnded):
            break
    assert delivery is not None
    assert delivery.message.persistent is outlives


def test_of_thousands_those_that_are_away_are_told_of_the_end_one_by_one(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told to everybody is lost if the broker restarts before they come back."""
    monkeypatch.setattr("flmq.server.asks.coordinator._FEW_CLIENTS", 0)
    away, peer = memory_federation.peer("away"), memory_federation.peer("peer")
    server = memory_federation.run(fed_avg(2), timeout=None)
    away.reply(away.task())
    away.hello(PresenceKind.BYE)
    away.consumer.close()
    server.watch.wait_for(ClientPresence, lambda p: (p.client_id, p.status) == ("away", "away"))
    peer.reply(peer.task())
    server.history()
    memory_federation.rig.broker.restart()  # type: ignore[attr-defined]
    away.consume()
    kept = away.consumer.receive(10.0)
    while kept is not None and not isinstance(decode(kept.message.body), JobEnded):
        kept = away.consumer.receive(10.0)
    assert kept is not None


def test_a_server_that_has_heard_few_yet_goes_by_how_many_its_run_asked(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that is started again with nothing left to do ends before many are heard."""
    peer = memory_federation.peer("peer")
    first = memory_federation.run(fed_avg(1), timeout=None, runs_dir=tmp_path)
    peer.reply(peer.task())
    first.history()
    peer.transport.declare(client_topology("quiet"))
    monkeypatch.setattr("flmq.server.asks.coordinator._FEW_CLIENTS", 0)
    monkeypatch.setattr(PresenceWatcher, "__len__", lambda watcher: 0)
    memory_federation.run(fed_avg(1), timeout=None, runs_dir=tmp_path).history()
    consumer = peer.transport.consumer([client_queue("quiet")], prefetch=10)
    told = consumer.receive(10.0)
    while told is not None and not isinstance(decode(told.message.body), JobEnded):
        told = consumer.receive(10.0)
    assert told is not None
    assert not told.message.persistent
