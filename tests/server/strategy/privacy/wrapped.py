"""Private strategies as tests make them, and rounds of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flmq.common import FitRes, Metrics, NDArray, NDArrays, ndarrays_to_parameters
from flmq.server.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    DPFedAvgAdaptive,
    DPFedAvgFixed,
    FedAvg,
    Strategy,
)
from tests.server.proxies import fit_res
from tests.server.strategy.oracle import Reply, round_of_ours

ADAPTIVE = (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DPFedAvgAdaptive,
)
FIXED = (
    DifferentialPrivacyServerSideFixedClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DPFedAvgFixed,
)
_NORM = {
    DPFedAvgFixed: "clip_norm",
    DPFedAvgAdaptive: "init_clip_norm",
    DifferentialPrivacyServerSideAdaptiveClipping: "initial_clipping_norm",
    DifferentialPrivacyClientSideAdaptiveClipping: "initial_clipping_norm",
}


def private(
    kind: Any = DifferentialPrivacyServerSideFixedClipping,
    strategy: Strategy | None = None,
    *,
    norm: float = 1.0,
    **options: Any,
) -> Any:
    """Return a strategy of ``kind`` that clips to ``norm``; without noise, of 4 clients."""
    options = {"noise_multiplier": 0.0, "num_sampled_clients": 4, "noise_seed": 7} | options
    return kind(strategy or FedAvg(), **{_NORM.get(kind, "clipping_norm"): norm}, **options)


def replies(*arrays: NDArray, metrics: Metrics | None = None) -> list[Reply]:
    """Return replies of one tensor each; every client claims another number of examples."""
    return [([array], 10 ** (number % 4), metrics or {}) for number, array in enumerate(arrays)]


def after(
    strategy: Strategy, model: NDArrays, sent: Sequence[Reply], server_round: int = 1
) -> tuple[NDArrays, Metrics]:
    """Run one round, which makes a model."""
    made, metrics = round_of_ours(strategy, server_round, model, sent)
    assert made is not None
    return made, metrics


def res(*arrays: NDArray, metrics: Metrics | None = None) -> FitRes:
    return fit_res(ndarrays_to_parameters(list(arrays)), 3, metrics)


def noise_of(strategy: Strategy, size: int, server_round: int = 1, clients: int = 4) -> NDArray:
    """Return the noise of a round in which no client moved a model of zeros."""
    made, _ = after(strategy, [np.zeros(size)], replies(*[np.zeros(size)] * clients), server_round)
    return made[0]
