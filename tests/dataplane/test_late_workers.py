"""Workers that come late, find their model gone, or have no room for it."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.client.serving.worker import WorkerOptions
from flmq.observe.events import Outcome, RoundCounts
from flmq.server.job.client_failure import ClientFailure
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.transport import MODELS, TASKS, Address, federation_topology, models_topology, task_key
from flmq.wire import Task
from tests.dataplane.looks import mean_of, published, trained
from tests.end_to_end.federation import Federation, Peer, fed_avg, initial

NUMBERS = 400_000
LATE = ["l1", "l2", "l3"]


def _empty_the_stream(federation: Federation) -> None:
    transport = federation.rig.witness()
    transport.delete_queue(MODELS)
    transport.declare(federation_topology() + models_topology())


def _leave_tasks(federation: Federation, peers: list[Peer], count: int = 1) -> list[Task]:
    """Take the peers' tasks, and put them back into their queues for workers to come."""
    tasks = [peer.task() for peer in peers for _ in range(count)]
    federation.peers = []
    for peer in peers:
        peer.consumer.close()
    for task in tasks:
        peers[0].send(Address(TASKS, task_key("main", task.client_id)), task)
    for peer in peers:
        peer.transport.close()
    return tasks


def test_workers_that_find_their_model_gone_get_it_published_again_once(
    federation: Federation,
) -> None:
    strategy = fed_avg(4, initial_parameters=initial(NUMBERS))
    peers = [federation.peer(client_id) for client_id in LATE]
    federation.serve("a")
    server = federation.run(strategy, timeout=None)
    tasks = _leave_tasks(federation, peers)
    _empty_the_stream(federation)
    federation.serve(*LATE)
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=4, accepted=4)
    ref = tasks[0].model
    assert ref is not None
    assert published(federation.rig) == {(ref.digest, index): 1 for index in range(ref.count)}
    assert server.model() == mean_of(["a", *LATE], initial(NUMBERS))


def test_a_worker_gives_up_a_model_whose_round_is_over(federation: Federation) -> None:
    """It comes to a round that closed without it, and must not wait there while others begin."""
    late, other = federation.peer("late"), federation.peer("other")
    config = ServerConfig(2, None, target_results=1)
    server = federation.run(fed_avg(2, initial_parameters=initial(NUMBERS)), config=config)
    other.reply(other.task(), trained("other", initial(NUMBERS)))
    other.task()  # of the second round, which only the late one will answer
    tasks = _leave_tasks(federation, [late], 2)
    assert [task.server_round for task in tasks] == [1, 2]
    _empty_the_stream(federation)
    federation.serve("late")
    server.history()
    assert server.watch.words(1) == {
        "late": [Outcome.SILENT, Outcome.LATE],
        "other": [Outcome.ACCEPTED],
    }
    assert server.watch.words(2) == {"late": [Outcome.ACCEPTED], "other": [Outcome.SILENT]}


class _Keeps(FedAvg):
    """Keeps the failures of its last round."""

    kept: list[Any]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        self.kept = failures
        return super().aggregate_fit(server_round, results, failures)


def test_a_worker_without_room_for_the_model_says_so_at_once(federation: Federation) -> None:
    strategy = _Keeps(
        fraction_evaluate=0.0, min_available_clients=2, initial_parameters=initial(NUMBERS)
    )
    federation.serve("large")
    federation.serve("small", options=WorkerOptions(heartbeat=1.0, max_model_bytes=1_000_000))
    server = federation.run(strategy, timeout=None)  # without a deadline: only a report ends it
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=1, failed=1)
    (failure,) = strategy.kept
    assert isinstance(failure, ClientFailure)
    assert failure.client_id == "small"
    assert failure.reason.startswith("ModelTooLarge: the model has 1600")
    assert "--max-model-bytes" in failure.reason
    assert server.model() == mean_of(["large"], initial(NUMBERS))


def test_a_model_that_does_not_come_is_reported_at_the_deadline(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flmq.server.models.published_models.PublishedModels.publish", lambda self, refs: 0
    )
    monkeypatch.setattr(
        "flmq.server.models.published_models.PublishedModels.publish_again",
        lambda self, digest: False,
    )
    strategy = fed_avg(1, initial_parameters=initial(NUMBERS))
    memory_federation.serve("a")
    server = memory_federation.run(strategy, timeout=2.0)
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=1, silent=1)
