"""Runs of federated XGBoost: trees, no arrays, go over the broker and through the journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flmq.client import Client
from flmq.common import FitIns, FitRes, Parameters
from flmq.journal import Journal
from flmq.journal.records import KeepPolicy
from flmq.observe.events import Outcome
from flmq.server.lifecycle.replay import replay
from flmq.server.resumption import checkpointer
from flmq.server.strategy import FedAvg, FedXgbBagging, FedXgbCyclic, FedXgbNnAvg
from tests.dying import Died, dies_at
from tests.end_to_end.federation import OK, Federation
from tests.server.strategy.trees.forests import stumps
from tests.server.strategy.trees.test_trees import network

CLIENTS = ("a", "b", "c")


class Boosts(Client):
    """Trains one tree, whose weight tells whose it is and how many trees there were."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def fit(self, ins: FitIns) -> FitRes:
        data = b"".join(ins.parameters.tensors)
        there = json.loads(data)["learner"]["gradient_booster"]["model"]["trees"] if data else []
        tree = stumps(100 * ord(self.client_id) + len(there))
        return FitRes(OK, Parameters([tree], ""), 1, {})


class Lies(Client):
    """Sends what would take a parser of JSON too deep."""

    def fit(self, ins: FitIns) -> FitRes:
        return FitRes(OK, Parameters([b"[" * 100_000], ""), 1, {})


class Networks(Client):
    """Sends a network of ones, and its trees."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def fit(self, ins: FitIns) -> FitRes:
        return FitRes(OK, network(1.0, self.client_id.encode()), 1, {})


def client(context: Any) -> Client:
    return Lies() if context.client_id == "liar" else Boosts(context.client_id)


def networks(context: Any) -> Client:
    return Networks(context.client_id)


def options(clients: int, **more: Any) -> dict[str, Any]:
    return {
        "fraction_evaluate": 0.0,
        "min_fit_clients": clients,
        "min_available_clients": clients,
        "initial_parameters": Parameters([], ""),
        **more,
    }


def weights(model: bytes) -> list[int]:
    trees = json.loads(model)["learner"]["gradient_booster"]["model"]["trees"]
    return [int(tree["base_weights"][2]) for tree in trees]


def test_trees_of_all_but_a_liar_are_collected(federation: Federation) -> None:
    federation.serve(*CLIENTS, "liar", source=client)
    server = federation.run(FedXgbBagging(**options(4)), rounds=2, timeout=None)
    expected = [100 * ord(who) + there for there in (0, 3) for who in CLIENTS]
    assert weights(server.model()) == expected
    assert server.watch.words()["liar"] == [Outcome.REJECTED] * 2


@pytest.mark.parametrize("kind", [FedXgbBagging, FedXgbCyclic, FedXgbNnAvg])
def test_a_run_that_was_cut_short_has_the_bits_of_one_that_was_not(
    memory_federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[FedAvg],
) -> None:
    memory_federation.serve(*CLIENTS, source=networks if kind is FedXgbNnAvg else client)
    straight = memory_federation.run(kind(**options(3)), rounds=3, timeout=None, job="straight")
    expected = straight.model()

    with monkeypatch.context() as patched:
        # That of round 0, of round 1, of round 2.
        patched.setattr(checkpointer, "crash_point", dies_at("server.round_aggregated", 3))
        first = memory_federation.run(kind(**options(3)), rounds=3, runs_dir=tmp_path)
        with pytest.raises(Died):
            first.history()
    keep = KeepPolicy(replies="all")
    again = memory_federation.run(kind(**options(3)), rounds=3, runs_dir=tmp_path, keep=keep)
    assert again.model() == expected


def test_replaying_gives_the_recorded_trees(memory_federation: Federation, tmp_path: Path) -> None:
    memory_federation.serve(*CLIENTS, source=client)
    keep = KeepPolicy(replies="all")
    memory_federation.run(
        FedXgbBagging(**options(3)), rounds=2, timeout=None, runs_dir=tmp_path, keep=keep
    ).history()
    journal = Journal.open(tmp_path / "job", create=False)
    replayed = list(replay(journal, FedXgbBagging(**options(3))))
    journal.close()
    assert [each.server_round for each in replayed] == [1, 2]
    assert all(each.same for each in replayed)
