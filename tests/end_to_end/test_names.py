"""Names of tensors on every way of a model: inline and in chunks, there and back, on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from flmq.cli.model import ModelSaver
from flmq.client import Client
from flmq.common import (
    FitIns,
    FitRes,
    Parameters,
    load_parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.journal import Journal, KeepPolicy
from flmq.observe.events import ClientOutcome, Outcome, RunEnded
from flmq.server import Server, SimpleClientManager
from flmq.server.lifecycle.replay import replay
from flmq.server.options import ResumePolicy
from flmq.server.strategy import TrainOnly
from flmq.wire import INLINE_BYTES
from tests.end_to_end.federation import JOB, OK, Federation, Keeping, fed_avg

NAMES = ("layer4.0.bn1.weight", "fc.bias")
SMALL, LARGE = 3, INLINE_BYTES
sizes = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["inline", "chunks"])


def model(size: int) -> Parameters:
    return ndarrays_to_parameters([np.ones(size, np.float32), np.zeros(2)], names=NAMES)


class Replies(Client):
    """Replies as its name says; notes the names that came."""

    came: list[tuple[str, ...]]

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def fit(self, ins: FitIns) -> FitRes:
        type(self).came.append(ins.parameters.names)
        tensors = [tensor + 1 for tensor in parameters_to_ndarrays(ins.parameters)]
        match self.client_id:
            case "named":
                parameters = ndarrays_to_parameters(tensors, names=ins.parameters.names)
            case "turned":
                parameters = ndarrays_to_parameters(tensors, names=NAMES[::-1])
            case "adapter":  # what it was not asked to train stays here
                parameters = ndarrays_to_parameters(tensors[1:], names=NAMES[1:])
            case "diverged":
                parameters = ndarrays_to_parameters([tensors[0], tensors[1] * np.nan])
            case _:
                parameters = ndarrays_to_parameters(tensors)
        return FitRes(OK, parameters, 1, {})


def source(context: Any) -> Client:
    return Replies(context.client_id)


class Looking(Keeping):
    """Keeps the names of the replies that it gets, whole; ends the run in its second round once."""

    streams = False
    stops = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[tuple[str, ...]] = []

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        self.seen += [res.parameters.names for _, res in results]
        if self.stops and server_round == 2:
            raise RuntimeError("stopped here")
        return super().aggregate_fit(server_round, results, failures)


@sizes
@pytest.mark.parametrize("streams", [True, False])
def test_names_go_with_the_model_and_come_back(
    federation: Federation, size: int, streams: bool
) -> None:
    Replies.came = []
    federation.serve("named", "bare", source=source)
    strategy = (
        fed_avg(2, initial_parameters=model(size))
        if streams
        else Looking(initial_parameters=model(size), fraction_evaluate=0.0, min_evaluate_clients=2)
    )
    run = federation.run(strategy, rounds=2)
    run.history()
    ended = run.watch.wait_for(RunEnded)
    assert ended.parameters is not None
    assert ended.parameters.names == NAMES
    assert Replies.came == [NAMES] * 4
    if isinstance(strategy, Looking):
        assert strategy.seen == [NAMES] * 4
    assert [float(t[0]) for t in parameters_to_ndarrays(ended.parameters)] == [3.0, 2.0]


def test_a_run_begins_from_the_file_that_another_left(
    memory_federation: Federation, tmp_path: Path
) -> None:
    """The file's names travel, and the strategy's own initial model is not asked for."""
    Replies.came = []
    memory_federation.serve("bare", "named", source=source)
    for job, parameters in (("one", model(SMALL)), ("two", None)):
        saver = ModelSaver(tmp_path / job)
        server = Server(client_manager=SimpleClientManager(), strategy=fed_avg(2))
        server.initial_parameters = parameters or load_parameters(
            tmp_path / "one" / "model.safetensors"
        )
        run = memory_federation.run(
            server=server, job=job, observers=[saver], runs_dir=tmp_path, rounds=1
        )
        run.history()
    assert Replies.came == [NAMES] * 4
    saved = load_parameters(tmp_path / "two" / "model.npz")
    assert saved.names == NAMES
    assert [float(t[0]) for t in parameters_to_ndarrays(saved)] == [3.0, 2.0]
    with safe_open(tmp_path / "two" / "model.safetensors", framework="np") as file:
        assert file.metadata()["flmq.closing_set"] == '["bare", "named"]'


@sizes
def test_errors_call_tensors_by_their_names(memory_federation: Federation, size: int) -> None:
    Replies.came = []
    memory_federation.serve("bare", "turned", "diverged", source=source)
    run = memory_federation.run(fed_avg(3, initial_parameters=model(size)))
    run.history()
    reasons = {
        outcome.client_id: outcome.reason
        for outcome in run.watch.of(ClientOutcome)
        if outcome.outcome is Outcome.REJECTED
    }
    assert reasons["turned"] == (
        "tensor fc.bias came where the model has layer4.0.bn1.weight: return all of the model's "
        "tensors, in their order"
    )
    assert reasons["diverged"].startswith("tensor fc.bias holds NaN or infinity")
    assert set(reasons) == {"turned", "diverged"}


@sizes
def test_a_server_that_resumes_has_the_names_again(
    memory_federation: Federation, size: int, tmp_path: Path
) -> None:
    Replies.came = []
    memory_federation.serve("bare", "named", source=source)
    strategies = [Looking(initial_parameters=model(size), fraction_evaluate=0.0) for _ in range(2)]
    strategies[0].stops = True
    first = memory_federation.run(strategies[0], rounds=3, runs_dir=tmp_path)
    with pytest.raises(RuntimeError, match="stopped here"):
        first.history()
    again = ResumePolicy.ANYWAY  # the first one was told to stop, and so has other options
    run = memory_federation.run(strategies[1], rounds=3, runs_dir=tmp_path, resume=again)
    run.history()
    assert strategies[1].seen == [NAMES] * 4  # of the second round from the journal, and the third
    ended = run.watch.wait_for(RunEnded)
    assert ended.parameters is not None
    assert ended.parameters.names == NAMES
    assert Replies.came == [NAMES] * 6


@sizes
def test_adapters_alone_come_back_and_the_model_stays_whole(
    federation: Federation, size: int, tmp_path: Path
) -> None:
    """Both train; only the bias is averaged, with a client that sends nothing else."""
    Replies.came = []
    federation.serve("adapter", "named", source=source)
    strategy = TrainOnly(fed_avg(2, initial_parameters=model(size)), "fc.*")
    keep = KeepPolicy(replies="all")
    run = federation.run(strategy, rounds=2, runs_dir=tmp_path, keep=keep)
    run.history()
    assert set(run.watch.words()) == {"adapter", "named"}
    assert {each.outcome for each in run.watch.of(ClientOutcome)} == {Outcome.ACCEPTED}
    ended = run.watch.wait_for(RunEnded)
    assert ended.parameters is not None
    assert ended.parameters.names == NAMES
    weight, bias = parameters_to_ndarrays(ended.parameters)
    assert (set(weight), bias.tolist()) == ({1.0}, [2.0, 2.0])
    assert Replies.came == [NAMES] * 4
    # The journal has the model, and makes it again of the replies.
    journal = Journal.open(tmp_path / JOB, create=False)
    assert journal.parameters(journal.checkpoints()[-1].digest) == ended.parameters
    assert [each.same for each in replay(journal, TrainOnly(fed_avg(2), "fc.*"))] == [True, True]
    journal.close()
