"""Models of bfloat16, float8, 0-d and big-endian numbers, there, back, averaged and cast."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.aggregation import weighted_mean
from flmq.client import NumPyClient
from flmq.common import (
    Config,
    Metrics,
    NDArrays,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.dtypes import rounded
from flmq.journal import Journal, KeepPolicy
from flmq.observe.events import ClientOutcome, Outcome, PhaseOpened, RunEnded
from flmq.server.lifecycle.replay import replay
from flmq.server.strategy import FedAdam, FedAvg, FedMedian, Krum
from flmq.server.strategy.fedavg import NoMean
from flmq.wire import INLINE_BYTES
from tests.end_to_end.federation import JOB, Federation, RunningServer, fed_avg

SIZES = pytest.mark.parametrize("size", [6, INLINE_BYTES], ids=["inline", "chunks"])


def model(size: int) -> NDArrays:
    rng = np.random.default_rng(4)
    numbers = rng.normal(size=size)
    return [
        numbers.astype("bfloat16").reshape(2, -1),
        numbers[:40].astype("float8_e4m3fn"),
        np.array(7),  # as num_batches_tracked of PyTorch
        np.array(0.5, "bfloat16"),
        numbers[:9].astype(">f4"),
        np.full(3, -0.0, np.float32),
    ]


def trained(client_id: str, tensors: NDArrays) -> NDArrays:
    """What a client makes of the model, in float32 where the model has narrow floats."""
    by = {"plain": 0.875, "wide": 1.1}[client_id]
    wide = [np.asarray(t * np.float32(by)) if t.dtype.kind != "i" else t + 2 for t in tensors]
    if client_id == "wide":
        wide[4] = wide[4].astype(">f8")
        return wide
    return [w.astype(t.dtype) for w, t in zip(wide, tensors, strict=True)]


class Client(NumPyClient):
    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def get_parameters(self, config: Config) -> NDArrays:
        return [np.zeros(3), np.zeros(2, np.complex64)]

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        metrics: Any = {
            "loss": np.array(0.5, "bfloat16"),
            "half": Decimal("0.5"),
            "confusion": np.ones((2, 2)),
        }
        examples: Any = {"plain": np.array(3), "wide": 5.0}.get(self.client_id, 1)
        tensors = [tensor.astype(np.float32) for tensor in parameters]
        match self.client_id:
            case "plain" | "wide":
                tensors = trained(self.client_id, parameters)
            case "large":
                tensors[0][0, 1] = 3.4e38
                tensors[2] = parameters[2]
            case "counting":
                tensors[0] = tensors[0].astype(np.int32)
                tensors[2] = parameters[2]
        return tensors, examples, metrics


def source(context: Any) -> Client:
    return Client(context.client_id)


def outcomes(run: RunningServer) -> dict[str, tuple[Outcome, str]]:
    return {o.client_id: (o.outcome, o.reason) for o in run.watch.of(ClientOutcome)}


def expected(size: int, rounds: int) -> list[bytes]:
    tensors = [np.asarray(t.astype(t.dtype.newbyteorder("="))) for t in model(size)]
    for _ in range(rounds):
        plain, wide = (trained(name, tensors) for name in ("plain", "wide"))
        cast = [
            w if w.dtype.kind == "i" else rounded(w.astype(np.float64), t.dtype)
            for w, t in zip(wide, tensors, strict=True)
        ]
        tensors = weighted_mean([(plain, 3), (cast, 5)])
    return [tensor.tobytes() for tensor in tensors]


@SIZES
def test_a_model_of_every_dtype_is_trained_and_replies_in_float32_are_cast(
    federation: Federation, size: int, tmp_path: Path
) -> None:
    federation.serve("plain", "wide", source=source)
    strategy = fed_avg(2, initial_parameters=ndarrays_to_parameters(model(size)), cast="like sent")
    run = federation.run(strategy, rounds=2, runs_dir=tmp_path, keep=KeepPolicy(replies="all"))
    history = run.history()
    ended = run.watch.wait_for(RunEnded)
    assert ended.parameters is not None
    got = parameters_to_ndarrays(ended.parameters)
    assert [t.dtype.name for t in got] == [t.dtype.name for t in model(size)]
    assert [t.tobytes() for t in got] == expected(size, 2)
    assert np.signbit(got[5]).all()
    assert history.metrics_distributed_fit["loss"] == [(1, 0.5), (2, 0.5)]
    assert set(history.metrics_distributed_fit) == {"loss", "half"}
    journal = Journal.open(tmp_path / JOB, create=False)
    replayed = list(replay(journal, fed_avg(2, cast="like sent")))
    journal.close()
    assert [step.same for step in replayed] == [True, True]


def test_what_cannot_be_cast_is_refused_by_name(memory_federation: Federation) -> None:
    memory_federation.serve("plain", "large", "counting", source=source)
    first = ndarrays_to_parameters(model(6), names=tuple("abcdef"))
    strategy = fed_avg(3, initial_parameters=first, cast="like sent")
    run = memory_federation.run(strategy)
    run.history()
    said = outcomes(run)
    assert said["plain"][0] is Outcome.ACCEPTED
    assert said["large"] == (
        Outcome.REJECTED,
        (
            "tensor a has numbers beyond bfloat16, to which it is cast from float32: scale or clip "
            "them, or train in bfloat16"
        ),
    )
    assert said["counting"][1].startswith("tensor a is int32, the model's is bfloat16")


def test_without_that_option_another_dtype_is_refused(memory_federation: Federation) -> None:
    memory_federation.serve("plain", "wide", source=source)
    run = memory_federation.run(fed_avg(2, initial_parameters=ndarrays_to_parameters(model(6))))
    run.history()
    assert outcomes(run)["wide"] == (
        Outcome.REJECTED,
        (
            "tensor 0 is float32, the model's is bfloat16: cast before returning, with "
            ".astype('bfloat16')"
        ),
    )


@pytest.mark.parametrize("strategy", [FedAvg, FedAdam, FedMedian, Krum])
def test_a_clients_own_parameters_without_a_mean_are_refused_before_training(
    memory_federation: Federation, strategy: type[FedAvg]
) -> None:
    memory_federation.serve("a", "b", source=source)
    run = memory_federation.run(strategy())
    with pytest.raises(NoMean, match="tensor 1: dtype complex64 has no mean"):
        run.history()
    assert [event.phase.value for event in run.watch.of(PhaseOpened)] == ["get_parameters"]
