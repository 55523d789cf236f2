"""Mods around a client: clipping as the server's strategies ask, and local differential privacy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from flmq.client import Client, DPFedAvgNumPyClient, NumPyClient
from flmq.client.client import answer
from flmq.client.dpfedavg_numpy_client import InvalidNoise
from flmq.client.mod import (
    InvalidModOption,
    LocalDpMod,
    NoClippingNorm,
    adaptiveclipping_mod,
    fixedclipping_mod,
    with_mods,
)
from flmq.common import (
    Code,
    Config,
    EvaluateIns,
    FitIns,
    FitRes,
    GetPropertiesIns,
    Metrics,
    NDArray,
    NDArrays,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.clipping import KEY_CLIPPING_NORM, KEY_NORM_BIT, update_norm
from flmq.common.errors import NonFiniteValues
from flmq.server.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DPFedAvgAdaptive,
)
from tests.server.proxies import manager_of
from tests.server.strategy.oracle import assert_close, flower
from tests.server.strategy.privacy.wrapped import after, private

MODEL: NDArrays = [np.array([1.0, 2.0]), np.array([3.0]), np.array(5)]
CLIP_TO_ONE: Config = {KEY_CLIPPING_NORM: 1.0}


class Mover(NumPyClient):
    """Moves a model by (3, 0), (4): by a norm of 5. And it counts."""

    by: tuple[Any, ...] = (np.array([3.0, 0.0]), np.array([4.0]), np.array(1))

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        for each, by in zip(parameters, self.by, strict=True):
            each += by  # in place, as many do
        return parameters, 7, {"loss": 0.5}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return 0.25, 3, {}


def trained(client: Any, config: Config, model: NDArrays = MODEL) -> tuple[NDArrays, FitRes]:
    res = answer(client, FitIns(ndarrays_to_parameters(model), config))
    return parameters_to_ndarrays(res.parameters), res


@pytest.mark.parametrize("mod", [fixedclipping_mod, adaptiveclipping_mod])
def test_an_update_of_norm_five_is_clipped_to_one(mod: Any) -> None:
    made, res = trained(with_mods(Mover(), [mod]), CLIP_TO_ONE)
    assert_close(made, [np.array([1.6, 2.0]), np.array([3.8]), np.array(5)])
    assert res.num_examples == 7
    assert res.metrics == {"loss": 0.5} | ({KEY_NORM_BIT: 1} if mod is adaptiveclipping_mod else {})


def test_a_short_one_stays() -> None:
    made, res = trained(with_mods(Mover(), [adaptiveclipping_mod]), {KEY_CLIPPING_NORM: 5})
    assert_close(made[:2], [np.array([4.0, 2.0]), np.array([7.0])], 0)
    assert res.metrics[KEY_NORM_BIT] == 0


def test_it_clips_as_flowers_mod_does() -> None:
    rng = np.random.default_rng(5)
    model: NDArrays = [rng.normal(size=(3, 2)), rng.normal(size=4)]

    class Random(Mover):
        by = tuple(rng.normal(size=x.shape) for x in model)

    theirs = [x + by for x, by in zip(model, Random.by, strict=True)]
    privacy = flower("flwr.supercore.differential_privacy")
    bit = privacy.compute_adaptive_clip_model_update(theirs, model, 0.7)
    made, res = trained(
        with_mods(Random(), [adaptiveclipping_mod]), {KEY_CLIPPING_NORM: 0.7}, model
    )
    assert_close(made, theirs, 1e-12)
    assert res.metrics[KEY_NORM_BIT] == bit


@pytest.mark.parametrize("norm", [None, 0, -1.0, math.nan, math.inf, "1", True])
def test_a_task_without_a_norm_fails_before_training(norm: Any) -> None:
    class Never(Mover):
        def fit(self, parameters: NDArrays, config: Config) -> Any:
            raise AssertionError("trained for nothing")

    config: Config = {} if norm is None else {KEY_CLIPPING_NORM: norm}
    with pytest.raises(NoClippingNorm, match=r"use the strategy DifferentialPrivacyClientSide"):
        trained(with_mods(Never(), [fixedclipping_mod]), config)


def test_other_messages_pass_and_mods_are_in_order() -> None:
    seen: list[str] = []

    def noting(name: str) -> Any:
        def mod(ins: Any, call_next: Any) -> Any:
            seen.append(f"{name} {type(ins).__name__}")
            return call_next(ins)

        return mod

    client = with_mods(Mover(), [noting("outer"), fixedclipping_mod, noting("inner")])
    evaluated = answer(client, EvaluateIns(ndarrays_to_parameters(MODEL), {}))
    assert evaluated.loss == 0.25
    assert answer(client, GetPropertiesIns({})).status.code is Code.GET_PROPERTIES_NOT_IMPLEMENTED
    assert seen == [
        "outer EvaluateIns",
        "inner EvaluateIns",
        "outer GetPropertiesIns",
        "inner GetPropertiesIns",
    ]
    assert client.to_client() is client
    assert isinstance(client.numpy_client, Mover)  # type: ignore[attr-defined]


def test_a_client_that_failed_is_not_clipped() -> None:
    class Failed(Client):
        def fit(self, ins: FitIns) -> FitRes:
            return FitRes(Status(Code.FIT_NOT_IMPLEMENTED, "no"), Parameters([], ""), 0, {})

    for mod in (adaptiveclipping_mod, LocalDpMod(1.0, 2.0, 1.0, 1e-5)):
        _, res = trained(with_mods(Failed(), [mod]), CLIP_TO_ONE)
        assert res.status.message == "no"


def test_what_is_not_finite_is_not_sent() -> None:
    class Diverged(Mover):
        by = (np.array([np.nan, 0.0]), np.array([0.0]), np.array(0))

    with pytest.raises(NonFiniteValues):
        trained(with_mods(Diverged(), [fixedclipping_mod]), CLIP_TO_ONE)


class Still(Mover):
    by = (0.0,)


def noise(client: Any, config: Config | None = None) -> NDArray:
    made, _ = trained(client, config or {}, [np.zeros(100_000)])
    return made[0]


def assert_normal(noise: NDArray, stddev: float) -> None:
    """Chi-squared; a false alarm once in a million seeds, and these are fixed."""
    low, high = stats.chi2(noise.size).ppf([5e-7, 1 - 5e-7])
    assert low < np.square(noise / stddev).sum() < high
    assert abs(noise.mean()) < 4.9 * stddev / math.sqrt(noise.size)


def test_local_noise_has_flowers_standard_deviation() -> None:
    mod = LocalDpMod(1.0, 2.0, 0.5, 1e-5, noise_seed=1)
    theirs = flower("flwr.client.mod").LocalDpMod(1.0, 2.0, 0.5, 1e-5)
    stddev = theirs.sensitivity * math.sqrt(2 * math.log(1.25 / theirs.delta)) / theirs.epsilon
    assert mod.stddev == pytest.approx(stddev, rel=1e-12)
    assert_normal(noise(with_mods(Still(), [mod])), stddev)


def test_local_noise_is_the_same_for_a_task_that_is_done_again() -> None:
    def client(seed: int | None = 1) -> Client:
        return with_mods(Still(), [LocalDpMod(1.0, 2.0, 0.5, 1e-5, noise_seed=seed)])

    assert noise(client()).tobytes() == noise(client()).tobytes()
    assert noise(client()).tobytes() != noise(client(2)).tobytes()
    assert noise(client(None)).tobytes() != noise(client(None)).tobytes()


def test_tensors_of_any_layout_are_noised() -> None:
    model: NDArrays = [np.asfortranarray(np.zeros((3, 4), np.float32)), np.array(0.0), np.array(3)]

    class All(Mover):
        by = (np.float32(1), 1.0, 1)

    made, _ = trained(with_mods(All(), [LocalDpMod(1.0, 2.0, 0.5, 1e-5)]), {}, model)
    assert [(x.shape, x.dtype) for x in made] == [(x.shape, x.dtype) for x in model]
    assert len(set(made[0].reshape(-1).tolist())) == 12
    assert made[2] == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clipping_norm", 0),
        ("clipping_norm", math.nan),
        ("sensitivity", -1),
        ("epsilon", 0),
        ("delta", 0),
        ("delta", 1),
        ("delta", True),
    ],
)
def test_options_out_of_range_are_named(name: str, value: Any) -> None:
    options: Any = {"clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5}
    with pytest.raises(InvalidModOption, match=f"{name} is {value!r}: give"):
        LocalDpMod(**options | {name: value})


def told(strategy: Any) -> Config:
    ((_, ins), *_) = strategy.configure_fit(1, ndarrays_to_parameters(MODEL), manager_of("a", "b"))
    config: Config = ins.config
    return config


@pytest.mark.parametrize(
    ("kind", "client"),
    [
        (DifferentialPrivacyClientSideFixedClipping, with_mods(Mover(), [fixedclipping_mod])),
        (DifferentialPrivacyClientSideAdaptiveClipping, with_mods(Mover(), [adaptiveclipping_mod])),
        (DPFedAvgAdaptive, DPFedAvgNumPyClient(Mover()).to_client()),
    ],
)
def test_what_a_mod_sends_is_what_its_strategy_expects(kind: Any, client: Client) -> None:
    strategy = private(kind)
    made, res = trained(client, told(strategy))
    _, metrics = after(strategy, MODEL, [(made, res.num_examples, res.metrics)] * 4)
    assert metrics["num_not_clipped"] == 0
    if kind is not DifferentialPrivacyClientSideFixedClipping:
        assert strategy.clipping_norm == pytest.approx(math.exp(0.1)), "all four were clipped"


def test_dpfedavgs_client_adds_its_share_of_the_noise() -> None:
    config: Config = {"dpfedavg_clip_norm": 1.0, "dpfedavg_noise_stddev": 0.75}
    assert_normal(noise(DPFedAvgNumPyClient(Still(), noise_seed=3).to_client(), config), 0.75)
    made, res = trained(
        DPFedAvgNumPyClient(Mover()).to_client(),
        {"dpfedavg_clip_norm": 1.0, "dpfedavg_adaptive_clip_enabled": True},
    )
    assert update_norm(made, MODEL) == pytest.approx(1.0)
    assert res.metrics["dpfedavg_norm_bit"] is False


@pytest.mark.parametrize("stddev", [-1, math.nan, "1", True])
def test_dpfedavgs_client_refuses_noise_that_is_none(stddev: Any) -> None:
    config: Config = {"dpfedavg_clip_norm": 1.0, "dpfedavg_noise_stddev": stddev}
    with pytest.raises(InvalidNoise):
        trained(DPFedAvgNumPyClient(Still()).to_client(), config)
    with pytest.raises(NoClippingNorm, match="use the strategy DPFedAvgFixed or DPFedAvgAdaptive"):
        trained(DPFedAvgNumPyClient(Still()).to_client(), {})
