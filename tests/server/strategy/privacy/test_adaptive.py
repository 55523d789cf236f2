"""A clipping norm that follows a quantile: the paper's formula, Flower's, and hostile clients."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

from flmq.common import Metrics
from flmq.common.clipping import KEY_DPFEDAVG_BIT, KEY_NORM_BIT
from flmq.server.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DPFedAvgAdaptive,
    FedAvg,
)
from flmq.server.strategy.options import InvalidStrategyOption
from tests.server.strategy.oracle import Reply, flower, round_of_flowers
from tests.server.strategy.privacy.wrapped import ADAPTIVE, after, private, replies

ZERO = [np.zeros(1)]
SIZES = [0.5, 2.0, 3.0, 4.0]
"""Norms of four updates: at a norm of 1 one is not clipped, b = 1/4."""


def sent(metric: str | None = None, *, clipped: bool = True) -> list[Reply]:
    """Four replies; with a metric they were clipped to 1, and say so."""
    if metric is None:
        return replies(*(np.array([size]) for size in SIZES))
    return [([np.array([min(size, 1.0)])], 1, {metric: (size > 1) is clipped}) for size in SIZES]


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_the_norm_follows_the_papers_formula(kind: Any) -> None:
    """C <- C exp(-0.2 (1/4 - 1/2)): three of four were clipped, so the norm grows."""
    strategy = private(kind)
    _, metrics = after(strategy, ZERO, sent())
    assert metrics["clipping_norm"] == 1.0, "the norm that the round used"
    assert strategy.clipping_norm == pytest.approx(math.exp(0.05), rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "metric", "bit"),
    [
        (DifferentialPrivacyClientSideAdaptiveClipping, KEY_NORM_BIT, True),
        (DPFedAvgAdaptive, KEY_DPFEDAVG_BIT, False),
    ],
)
def test_clients_that_clipped_say_so(kind: Any, metric: str, bit: bool) -> None:
    strategy = private(kind)
    _, metrics = after(strategy, ZERO, sent(metric, clipped=bit))
    assert strategy.clipping_norm == pytest.approx(math.exp(0.05), rel=1e-12)
    assert metric not in metrics, "its mean would tell without noise what the count tells with it"


def test_as_flowers_older_strategy_moves_it() -> None:
    theirs = flower().DPFedAvgAdaptive(
        flower().FedAvg(), 4, 1.0, 0.0, clip_norm_lr=0.7, clip_norm_target_quantile=0.8
    )
    ours = private(DPFedAvgAdaptive, clip_norm_lr=0.7, clip_norm_target_quantile=0.8)
    round_of_flowers(theirs, 1, ZERO, sent(KEY_DPFEDAVG_BIT, clipped=False))
    after(ours, ZERO, sent(KEY_DPFEDAVG_BIT, clipped=False))
    assert ours.clipping_norm == pytest.approx(theirs.clip_norm, rel=1e-12)


@pytest.mark.parametrize("target", [0.2, 0.5])
def test_flowers_newer_ones_move_it_away_from_its_target(target: float) -> None:
    """Flower takes the share that was clipped for the share that was not: ours times theirs is C^2.

    Three of four were clipped, more than the target: theirs clips to less and less.
    """
    theirs = flower().DifferentialPrivacyServerSideAdaptiveClipping(
        flower().FedAvg(), 0.0, 4, 1.0, target
    )
    ours = private(DifferentialPrivacyServerSideAdaptiveClipping, target_clipped_quantile=target)
    round_of_flowers(theirs, 1, ZERO, [(arrays, 1, {}) for arrays, *_ in sent()])
    after(ours, ZERO, sent())
    assert ours.clipping_norm > 1 > theirs.clipping_norm
    assert ours.clipping_norm * theirs.clipping_norm == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("initial", [0.5, 500.0])
def test_it_ends_at_the_quantile(initial: float) -> None:
    """Norms 1 to 20, of which a quarter is to be clipped: 15 are below, wherever it begins."""
    strategy = private(
        DifferentialPrivacyServerSideAdaptiveClipping,
        norm=initial,
        num_sampled_clients=20,
        clip_norm_lr=0.6,
        target_clipped_quantile=0.25,
    )
    clients = [np.array([float(size)]) for size in range(1, 21)]
    for server_round in range(1, 26):
        after(strategy, ZERO, replies(*clients), server_round)
    assert strategy.clipping_norm == pytest.approx(15.5, rel=0.1)


def test_one_that_is_missing_is_neither_for_more_nor_for_less() -> None:
    """Of 4 asked 2 came, one of them clipped: b = 1/2, at its target."""
    strategy = private(DifferentialPrivacyServerSideAdaptiveClipping)
    after(strategy, ZERO, replies(np.array([0.5]), np.array([3.0])))
    assert strategy.clipping_norm == 1.0


def test_the_budget_is_split_as_in_the_paper() -> None:
    """z = 1, sigma_b = 1: z_delta = (1 - 1/4)^(-1/2)."""
    strategy = private(
        DifferentialPrivacyServerSideAdaptiveClipping,
        noise_multiplier=1.0,
        clipped_count_stddev=1.0,
    )
    assert strategy.mechanism().noise_multiplier == pytest.approx(1 / math.sqrt(0.75))
    by_default = private(
        DifferentialPrivacyServerSideAdaptiveClipping,
        noise_multiplier=1.0,
        num_sampled_clients=100,
    )
    (stddev, theirs) = flower("flwr.supercore.differential_privacy").compute_adaptive_noise_params(
        1.0, 100, None
    )
    assert stddev == 5.0
    assert by_default.mechanism().noise_multiplier == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_count_that_spends_it_all_is_refused(kind: Any) -> None:
    with pytest.raises(InvalidStrategyOption, match=r"give a clipped_count_stddev .* above 0.5"):
        private(kind, noise_multiplier=1.0, num_sampled_clients=10)


def test_noise_is_that_of_the_norm_that_updates_were_clipped_to() -> None:
    strategy = private(
        DifferentialPrivacyServerSideAdaptiveClipping,
        noise_multiplier=1.0,
        clipped_count_stddev=1.0,
        clip_norm_lr=1.0,
    )
    zeros = [np.zeros(100_000)]
    made, _ = after(strategy, zeros, [(zeros, 1)] * 4)
    assert made[0].std() == pytest.approx(1 / math.sqrt(0.75) / 4, rel=0.02)
    assert strategy.clipping_norm < 0.9


@pytest.mark.parametrize("lie", [None, 7, "yes", 0.5, -1, b"1"])
def test_a_client_that_says_nonsense_counts_by_its_norm(
    lie: Any, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = private(DifferentialPrivacyClientSideAdaptiveClipping)
    metrics: Metrics = {} if lie is None else {KEY_NORM_BIT: lie}
    told: list[Reply] = [*sent(KEY_NORM_BIT)[:3], ([np.array([0.1])], 1, metrics)]
    with caplog.at_level(logging.WARNING):
        _, shown = after(strategy, ZERO, told)
    assert strategy.clipping_norm == pytest.approx(1.0)
    assert "do not say in 'norm_bit' whether they clipped: client-003" in caplog.text
    assert shown["num_not_clipped"] == 0


def test_a_client_that_says_it_clipped_and_did_not_is_clipped_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strategy = private(DifferentialPrivacyClientSideAdaptiveClipping)
    told: list[Reply] = [*sent(KEY_NORM_BIT)[:3], ([np.array([50.0])], 1, {KEY_NORM_BIT: 0})]
    with caplog.at_level(logging.WARNING):
        made, shown = after(strategy, ZERO, told)
    assert made[0].tolist() == [(0.5 + 1 + 1 + 1) / 4]
    assert shown["num_not_clipped"] == 1
    assert "these did not clip, and were clipped here: client-003" in caplog.text
    assert strategy.clipping_norm == pytest.approx(math.exp(0.05), rel=1e-12)


def test_rounding_is_no_lie(caplog: pytest.LogCaptureFixture) -> None:
    """An update of norm 1e-3 beside numbers of 1000, in float32, is longer than it should be."""
    model = [np.full(1000, 1000.0, np.float32)]
    by = np.full(1000, 1e-3 / math.sqrt(1000))
    trained = [(model[0] + by).astype(np.float32)]
    strategy = private(DifferentialPrivacyClientSideAdaptiveClipping, norm=1e-3)
    _, shown = after(strategy, model, [(trained, 1, {KEY_NORM_BIT: 1})] * 4)
    assert shown["num_not_clipped"] == 0


def test_no_rate_and_no_rounds_end_in_zero_or_infinity() -> None:
    for target in (0.0, 1.0):
        strategy = private(
            DifferentialPrivacyServerSideAdaptiveClipping,
            FedAvg(),
            clip_norm_lr=1e6,
            target_clipped_quantile=target,
        )
        for server_round in range(1, 4):
            after(strategy, ZERO, sent(), server_round)
            assert 0 < strategy.clipping_norm < math.inf
