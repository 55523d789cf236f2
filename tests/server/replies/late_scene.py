"""Rounds that close with their first reply, so that a test says who is late, and to what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flmq.common import (
    FitIns,
    FitRes,
    Metrics,
    NDArrays,
    Parameters,
    parameters_to_ndarrays,
)
from flmq.journal import Journal, KeepPolicy
from flmq.journal.records import PhaseRow
from flmq.server import ServerConfig
from flmq.server.client_proxy import ClientProxy
from flmq.server.lifecycle.replay import replay
from flmq.server.strategy import FedAvg, LateFitRes, LateReplies
from flmq.wire import Receipt, Task
from tests.end_to_end.federation import (
    JOB,
    Federation,
    Keeping,
    Peer,
    RunningServer,
    fit_res,
    initial,
)

CLIENTS = 2
KEPT = KeepPolicy(replies="all")


class Seeing(Keeping):
    """FedAvg that notes whose replies it is given, and the round that asked for late ones."""

    late_replies = LateReplies.NEXT_ROUND

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: dict[int, list[tuple[str, int | None]]] = {}

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, Metrics]:
        self.seen[server_round] = [
            (client.cid, res.server_round if isinstance(res, LateFitRes) else None)
            for client, res in results
        ]
        return super().aggregate_fit(server_round, results, failures)

    def state_dict(self) -> dict[str, Any]:
        return {}


def seeing(**options: Any) -> Seeing:
    return Seeing(
        **{
            "fraction_evaluate": 0.0,
            "min_fit_clients": CLIENTS,
            "min_evaluate_clients": CLIENTS,
            "min_available_clients": CLIENTS,
            "initial_parameters": initial(),
            **options,
        }
    )


def streaming(**options: Any) -> FedAvg:
    """The mean as replies come: no reply is kept."""
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=CLIENTS,
        min_available_clients=CLIENTS,
        initial_parameters=initial(),
        **options,
    )
    strategy.late_replies = LateReplies.NEXT_ROUND
    return strategy


@dataclass
class Scene:
    """A server whose rounds close with their first reply, and two clients by hand."""

    federation: Federation
    folder: Path | None
    rounds: int
    a: Peer
    b: Peer
    server: RunningServer

    @classmethod
    def of(
        cls, federation: Federation, folder: Path | None, strategy: Any, rounds: int = 3
    ) -> Scene:
        a, b = federation.peer("a"), federation.peer("b")
        server = cls.start(federation, folder, strategy, rounds)
        return cls(federation, folder, rounds, a, b, server)

    @staticmethod
    def start(
        federation: Federation, folder: Path | None, strategy: Any, rounds: int
    ) -> RunningServer:
        config = ServerConfig(num_rounds=rounds, round_timeout=None, target_results=1)
        return federation.run(strategy, config=config, runs_dir=folder, keep=KEPT)

    def again(self, strategy: Any) -> None:
        """Another server of the job."""
        self.server = self.start(self.federation, self.folder, strategy, self.rounds)

    def journal(self) -> Journal:
        assert self.folder is not None
        return Journal.open(self.folder / JOB, create=False)

    def fit_rows(self) -> dict[int, PhaseRow]:
        journal = self.journal()
        rows = {row.server_round: row.phases[0] for row in journal.rounds() if row.phases}
        journal.close()
        return rows

    def replays(self, strategy: Any) -> list[bool]:
        journal = self.journal()
        same = [each.same for each in replay(journal, strategy)]
        journal.close()
        return same


def answer(peer: Peer, task: Task, add: float = 1.0, num_examples: int = 1, **more: Any) -> None:
    """Reply with the model, to each number of which ``add`` is added."""
    peer.reply(task, trained(task, add, num_examples), **more)


def trained(task: Task, add: float, num_examples: int = 1) -> FitRes:
    return fit_res(task, lambda tensors: [t + np.float32(add) for t in tensors], num_examples)


def receipt(peer: Peer, task: Task) -> Receipt:
    """What became of the reply to ``task``."""
    while (told := peer.next(Receipt)).task_id != task.task_id:
        pass
    return told


def parameters_of(task: Task) -> Parameters:
    assert isinstance(task.ins, FitIns)
    return task.ins.parameters


def model_of(task: Task) -> NDArrays:
    return parameters_to_ndarrays(parameters_of(task))
