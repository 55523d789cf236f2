"""SCAFFOLD and FedNova in federations: killed clients and servers, replays, and peers' garbage."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.client import ClientContext, NumPyClient
from flmq.client.options import WorkerOptions
from flmq.common import (
    Config,
    FitIns,
    Metrics,
    NDArrays,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.crashpoints import CRASH_AT
from flmq.journal import Journal
from flmq.journal.records import KeepPolicy
from flmq.observe.events import ClientOutcome, Outcome
from flmq.server.lifecycle.replay import replay
from flmq.server.resumption import checkpointer
from flmq.server.strategy import SCAFFOLD, FedAvg, FedNova
from flmq.testing import fast_retries
from tests.dying import Died, dies_at
from tests.end_to_end.federation import Federation, Nudge, fit_res, initial
from tests.processes import environment, start
from tests.server.strategy.heterogeneous import scaffold_app
from tests.server.strategy.heterogeneous.quadratics import rounds
from tests.transport.rigs import RabbitMQRig, eventually

CLIENTS = ("a", "b", "c")
NUMBERS = 5000
"""So that c is a file of its own in the journal."""
SLOW = 60.0
ROOT = Path(__file__).resolve().parents[4]


class Stepping(Nudge):
    """Says how many steps it took."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        arrays, num_examples, _ = super().fit(parameters, config)
        return arrays, num_examples, {"tau": self.weight}


def stepping(context: ClientContext) -> Stepping:
    return Stepping(context.client_id)


def made(kind: type[FedAvg]) -> FedAvg:
    options: dict[str, Any] = {
        "fraction_evaluate": 0.0,
        "min_fit_clients": len(CLIENTS),
        "min_available_clients": len(CLIENTS),
        "initial_parameters": initial(NUMBERS),
    }
    return SCAFFOLD(num_clients=3, **options) if kind is SCAFFOLD else kind(**options)


def source(kind: type[FedAvg]) -> Any:
    return scaffold_app.client if kind is SCAFFOLD else stepping


def undisturbed(kind: type[FedAvg], folder: Path, count: int) -> bytes:
    """What the rounds make of the model, without a server or a broker."""
    clients: dict[str, NumPyClient] = {
        name: source(kind)(ClientContext("job", name, "main", {}, folder / name))
        for name in CLIENTS
    }
    start = parameters_to_ndarrays(initial(NUMBERS))
    model = rounds(made(kind), clients, start, range(1, count + 1))
    return b"".join(ndarrays_to_parameters(model).tensors)


@pytest.mark.parametrize("point", ["server.round_aggregated", "server.round_closed"])
@pytest.mark.parametrize("kind", [SCAFFOLD, FedNova])
def test_a_run_that_was_cut_short_has_the_bits_of_one_that_was_not(
    memory_federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    kind: type[FedAvg],
) -> None:
    options = WorkerOptions(heartbeat=1.0, state_dir=tmp_path / "state")
    memory_federation.serve(*CLIENTS, source=source(kind), options=options)
    runs, keep = tmp_path / "runs", KeepPolicy(replies="all")
    with monkeypatch.context() as patched:
        # That of round 0, of round 1, of round 2.
        patched.setattr(checkpointer, "crash_point", dies_at(point, 3))
        first = memory_federation.run(made(kind), rounds=4, runs_dir=runs, keep=keep)
        with pytest.raises(Died):
            first.history()
    again = memory_federation.run(made(kind), rounds=4, runs_dir=runs, keep=keep)
    assert again.model() == undisturbed(kind, tmp_path / "alone", 4)
    journal = Journal.open(runs / "job", create=False)
    replayed = list(replay(journal, made(kind)))
    journal.close()
    assert [each.server_round for each in replayed] == [1, 2, 3, 4]
    assert all(each.same for each in replayed)


@pytest.fixture
def servers(broker_url: str) -> Iterator[Federation]:
    with fast_retries():
        rig = RabbitMQRig(broker_url)
        federation = Federation(rig)
        yield federation
        federation.close()
        rig.close()


CRASHES = {"a": "worker.trained:2", "b": "worker.reply_confirmed:2", "c": ""}
"""Client id: where it is killed. "a" has its new variate then and no reply, "b" both."""


def test_killed_clients_apply_no_variate_twice(
    servers: Federation, broker_url: str, tmp_path: Path
) -> None:
    """Real processes over RabbitMQ, killed in round 2 and started again: the same bits."""
    alive: dict[str, subprocess.Popen[bytes]] = {}

    def begin(name: str, crash_at: str) -> None:
        command = [sys.executable, "-m", "flmq", "client"]
        command += ["tests.server.strategy.heterogeneous.scaffold_app:client"]
        command += [f"--client-id={name}", "--state-dir=state", "--heartbeat=1", "--once"]
        env = {**environment(broker_url), CRASH_AT: crash_at, "PYTHONPATH": str(ROOT)}
        alive[name] = start(command, tmp_path / f"output-{len(killed)}-{name}", tmp_path, env)

    killed: list[str] = []
    try:
        for name, crash_at in CRASHES.items():
            begin(name, crash_at)
        server = servers.run(made(SCAFFOLD), rounds=4, timeout=None)

        def both_were_killed() -> bool:
            for name, process in list(alive.items()):
                if name not in killed and process.poll() == -signal.SIGKILL:
                    killed.append(name)
                    begin(name, "")
            return len(killed) == 2

        eventually(both_were_killed, SLOW)
        server.history(SLOW)
        assert server.model() == undisturbed(SCAFFOLD, tmp_path / "alone", 4)
        for process in alive.values():
            assert process.wait(SLOW) == 0
    finally:
        for process in alive.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def test_a_peer_that_sends_garbage_is_rejected_and_the_others_count(
    memory_federation: Federation, tmp_path: Path
) -> None:
    options = WorkerOptions(heartbeat=1.0, state_dir=tmp_path)
    memory_federation.serve("a", "b", source=scaffold_app.client, options=options)
    peer = memory_federation.peer("c")
    server = memory_federation.run(made(SCAFFOLD), rounds=2)
    task = peer.task()
    peer.reply(task, fit_res(task, metrics={"control_variate": "no digest"}))
    task = peer.task()
    assert isinstance(task.ins, FitIns)
    assert task.ins.config == {"control_variate": ""}
    peer.reply(task, fit_res(task, lambda x: x[: len(x) // 2], metrics={}))
    server.history()
    rejected = [
        (each.server_round, each.client_id, each.reason[:40])
        for each in server.watch.of(ClientOutcome)
        if each.outcome is Outcome.REJECTED
    ]
    assert rejected == [
        (1, "c", 'the metric "control_variate" is \'no dige'),
        (2, "c", "2 tensors came, the model has 4: return "),
    ]
    assert server.model() != b"".join(initial(NUMBERS).tensors)


def test_initial_parameters_of_a_client_are_the_model_alone(
    memory_federation: Federation, tmp_path: Path
) -> None:
    class Asked(scaffold_app.Target):
        def get_parameters(self, config: Config) -> NDArrays:
            return [np.ones(2, np.float32)]

        def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
            return float(len(parameters)), 1, {}

    options = WorkerOptions(heartbeat=1.0, state_dir=tmp_path)
    memory_federation.serve("a", "b", source=Asked, options=options)
    server = memory_federation.run(SCAFFOLD(num_clients=2), rounds=2)
    assert server.history().losses_distributed == [(1, 1.0), (2, 1.0)]


def test_a_client_that_lost_its_folder_is_told_apart_and_all_begin_at_zero(
    memory_federation: Federation, tmp_path: Path
) -> None:
    """In round 2 "b" has lost its folder; in round 3 all begin at zero, and all count again."""
    bases: list[tuple[str, bool]] = []

    class Forgetful(scaffold_app.Target):
        def __init__(self, context: ClientContext) -> None:
            super().__init__(context)
            self.context = context

        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            bases.append((self.context.client_id, config["control_variate"] == ""))
            if self.context.client_id == "b" and len(bases) in (3, 4):
                assert self.context.state_dir is not None
                shutil.rmtree(self.context.state_dir)
            return super().fit(parameters, config)

    options = WorkerOptions(heartbeat=1.0, state_dir=tmp_path)
    memory_federation.serve("a", "b", source=Forgetful, options=options)
    strategy = SCAFFOLD(num_clients=2, restart_lost=True, fraction_evaluate=0.0)
    strategy.initial_parameters = initial()
    server = memory_federation.run(strategy, rounds=3)
    server.history()
    assert sorted(bases[:2]) == [("a", True), ("b", True)]
    assert sorted(bases[2:4]) == [("a", False), ("b", False)]
    assert sorted(bases[4:]) == [("a", True), ("b", True)]
    failed = [e for e in server.watch.of(ClientOutcome) if e.outcome is Outcome.FAILED]
    assert [(each.server_round, each.client_id) for each in failed] == [(2, "b")]
    assert failed[0].reason.startswith("LostVariate: ")
    assert set(strategy.state_dict()["counted"]) == {"a", "b"}


def test_a_client_without_a_folder_fails_and_says_how_to_give_one(
    memory_federation: Federation, tmp_path: Path
) -> None:
    with_folder = WorkerOptions(heartbeat=1.0, state_dir=tmp_path)
    memory_federation.serve("a", source=scaffold_app.client, options=with_folder)
    memory_federation.serve("b", source=scaffold_app.client)
    strategy = SCAFFOLD(num_clients=2, fraction_evaluate=0.0, initial_parameters=initial())
    server = memory_federation.run(strategy)
    server.history()
    assert set(strategy.state_dict()["counted"]) == {"a"}
    (failed,) = [e for e in server.watch.of(ClientOutcome) if e.outcome is Outcome.FAILED]
    assert "NoStateFolder: SCAFFOLD's clients keep a control variate" in failed.reason
    assert "--state-dir" in failed.reason
