"""A private strategy around any other: what that sees, what is refused, and what it keeps."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from flmq.common import FitIns, NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.clipping import KEY_CLIPPING_NORM
from flmq.common.errors import InvalidReturnValue
from flmq.journal.state import decode_state, encode_state
from flmq.server.lifecycle.run_folder import _fingerprint
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    DPFedAvgAdaptive,
    DPFedAvgFixed,
    FedAdam,
    FedAvg,
    FedBuff,
    FedMedian,
    FedXgbBagging,
    LateReplies,
    Strategy,
)
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.privacy.clipped import RepliedTwice
from flmq.server.strategy.privacy.options import LateRepliesNotPrivate
from flmq.server.strategy.privacy.wrapper import NotPrivateBefore
from flmq.server.strategy.streaming import says_it_streams
from tests.server.proxies import manager_of
from tests.server.strategy.oracle import our_results, round_of_ours
from tests.server.strategy.privacy.wrapped import ADAPTIVE, FIXED, after, private, replies

ZERO = [np.zeros(2)]
LOUD = replies(*(np.array([3.0, 4.0]) * size for size in (1, 2, 3, 4)))
"""Norms of 5 and more: clipped to 1 each is (0.6, 0.8)."""


class Plain(FedAvg):
    """As Flower's users override `aggregate_fit`: looks at whole replies, then asks ``super()``."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        self.seen = [
            (parameters_to_ndarrays(res.parameters)[0].tolist(), res.num_examples)
            for _, res in results
        ]
        return super().aggregate_fit(server_round, results, failures)


class Own(Plain):
    """Makes the model itself: the mean of what it sees, by ``num_examples``."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        total = sum(res.num_examples for _, res in results)
        mean = sum(
            parameters_to_ndarrays(res.parameters)[0] * res.num_examples / total
            for _, res in results
        )
        return ndarrays_to_parameters([np.asarray(mean)]), {}


def test_it_streams_as_the_wrapped_strategy_does() -> None:
    assert says_it_streams(private(strategy=FedAdam()))
    assert not says_it_streams(private(strategy=Plain()))


def test_an_aggregate_fit_that_asks_super_sees_clipped_replies_and_is_private() -> None:
    strategy = private(strategy=Plain(), noise_multiplier=1.0)
    made, metrics = after(strategy, ZERO, LOUD)
    (seen, examples), *others = strategy.strategy.seen
    assert seen == pytest.approx([0.6, 0.8])
    assert examples == 1
    assert len(others) == 3
    expected, _ = after(private(strategy=FedAvg(), noise_multiplier=1.0), ZERO, LOUD)
    assert made[0].tobytes() == expected[0].tobytes()
    assert "epsilon" in metrics


@pytest.mark.parametrize("inner", [Own, FedMedian])
def test_what_takes_no_mean_is_noised_as_flower_does_but_has_no_epsilon(
    inner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = after(private(strategy=inner()), ZERO, LOUD)
    assert made[0].tolist() == pytest.approx([0.6, 0.8])
    caplog.clear()
    strategy = private(strategy=inner(), noise_multiplier=4.0)
    zeros = [np.zeros(20_000)]
    with caplog.at_level(logging.WARNING):
        for server_round in (1, 2):
            noisy, metrics = after(strategy, zeros, [(zeros, 1)] * 4, server_round)
    assert noisy[0].std() == pytest.approx(1.0, rel=0.03)
    assert "epsilon" not in metrics
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"no epsilon can be told: {inner.__name__} does not take the mean")
    resumed = private(strategy=inner(), noise_multiplier=4.0)
    resumed.load_state_dict(strategy.state_dict())
    assert "epsilon" not in after(resumed, zeros, [(zeros, 1)] * 4, 3)[1]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (DifferentialPrivacyServerSideFixedClipping, {}),
        (DifferentialPrivacyServerSideAdaptiveClipping, {}),
        (DifferentialPrivacyClientSideFixedClipping, {KEY_CLIPPING_NORM: 3.0}),
        (DifferentialPrivacyClientSideAdaptiveClipping, {KEY_CLIPPING_NORM: 3.0}),
        (DPFedAvgFixed, {"dpfedavg_clip_norm": 3.0}),
        (DPFedAvgAdaptive, {"dpfedavg_clip_norm": 3.0, "dpfedavg_adaptive_clip_enabled": True}),
    ],
)
def test_clients_are_told_what_flowers_mods_read(kind: Any, told: dict[str, Any]) -> None:
    strategy = private(kind, FedAvg(on_fit_config_fn=lambda _: {"lr": 0.1}), norm=3)
    model = ndarrays_to_parameters(ZERO)
    for _, ins in strategy.configure_fit(1, model, manager_of("a", "b")):
        assert ins == FitIns(model, {"lr": 0.1, **told})
        assert ins.parameters is model, "one object is published once"


def test_clients_that_add_the_noise_are_told_how_much() -> None:
    """z C / sqrt(n) = 1.5 * 2 / 2."""
    strategy = private(DPFedAvgFixed, norm=2.0, noise_multiplier=1.5, server_side_noising=False)
    ((_, ins), *_) = strategy.configure_fit(1, ndarrays_to_parameters(ZERO), manager_of("a", "b"))
    assert ins.config["dpfedavg_noise_stddev"] == 1.5


def test_metrics_and_failures_are_the_wrapped_strategys() -> None:
    sent = replies(*ZERO * 4, metrics={"loss": 0.5})
    _, metrics = after(private(), ZERO, sent)
    assert metrics["loss"] == 0.5
    made, _ = round_of_ours(private(), 1, ZERO, sent[:2], [RuntimeError()])
    assert made is not None, "one that failed does not undo the others' round"


def test_a_client_cannot_set_epsilon() -> None:
    _, metrics = after(private(noise_multiplier=1.0), ZERO, replies(*ZERO, metrics={"epsilon": 0}))
    assert metrics["epsilon"] != 0


def test_a_client_that_is_asked_twice_is_refused() -> None:
    class Twice(FedAvg):
        def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
            return super().configure_fit(server_round, parameters, client_manager) * 2

    with pytest.raises(InvalidReturnValue, match=r"Twice.configure_fit returned a twice"):
        private(strategy=Twice(min_fit_clients=1, min_available_clients=1)).configure_fit(
            1, ndarrays_to_parameters(ZERO), manager_of("a")
        )
    strategy = private()
    strategy.global_parameters = ndarrays_to_parameters(ZERO)
    with pytest.raises(RepliedTwice):
        strategy.aggregate_fit(1, our_results(LOUD) + our_results(LOUD[:1]), [])


def test_late_replies_do_not_count() -> None:
    late = FedAvg()
    late.late_replies = LateReplies.NEXT_ROUND
    with pytest.raises(LateRepliesNotPrivate):
        private(strategy=late)
    strategy = private()
    with pytest.raises(LateRepliesNotPrivate, match=r"leave late_replies \(--late\) at drop"):
        strategy.late_replies = LateReplies.NEXT_ROUND
    strategy.late_replies = LateReplies.DROP


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        (None, "strategy is None: give a strategy"),
        (FedAvg, "strategy is the class FedAvg"),
        (3, "strategy is 3"),
        (private(), "private already: wrap it once"),
        (FedBuff(), "has no rounds"),
        (FedXgbBagging(), "there is no update to clip"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(strategy: Any, why: str) -> None:
    with pytest.raises(InvalidStrategyOption, match=why):
        DifferentialPrivacyServerSideFixedClipping(strategy, 1.0, 1.0, 4)


@pytest.mark.parametrize("kind", [*FIXED, *ADAPTIVE])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_multiplier", -0.1),
        ("noise_multiplier", float("nan")),
        ("noise_multiplier", "1"),
        ("norm", 0),
        ("norm", -1.0),
        ("norm", float("inf")),
        ("num_sampled_clients", 0),
        ("num_sampled_clients", 2.5),
        ("num_sampled_clients", True),
        ("delta", 0),
        ("delta", 1.0),
        ("num_clients", 0),
    ],
)
def test_options_out_of_range_are_named(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidStrategyOption, match=f"{'norm' if name == 'norm' else name} is "):
        private(kind, **{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((kind, "clip_norm_lr", 0) for kind in ADAPTIVE),
        *((kind, "target_clipped_quantile", value) for kind in ADAPTIVE[:2] for value in (-1, 1.1)),
        *((kind, "clipped_count_stddev", -1) for kind in ADAPTIVE[:2]),
        (DPFedAvgAdaptive, "clip_norm_target_quantile", 2),
        (DPFedAvgAdaptive, "clip_count_stddev", -1),
    ],
)
def test_options_of_adaptive_clipping_out_of_range_are_named(
    kind: Any, name: str, value: Any
) -> None:
    with pytest.raises(InvalidStrategyOption, match=f"{name} is {value}"):
        private(kind, **{name: value})


@pytest.mark.parametrize("seed", [-31, 1.75, "hunter2", True])
def test_a_seed_that_is_none_is_refused_and_not_shown(seed: Any) -> None:
    with pytest.raises(InvalidStrategyOption) as refused:
        private(noise_seed=seed)
    assert str(seed) not in str(refused.value)


def fingerprint(strategy: Strategy) -> dict[str, str]:
    server = Server(client_manager=manager_of("a"), strategy=strategy)
    return _fingerprint(server, ServerConfig(), 1)


def test_a_jobs_identity_has_the_wrapped_strategys_options_and_not_the_secret() -> None:
    def made(**options: Any) -> Strategy:
        return private(strategy=FedAdam(**options), noise_seed=123456789)  # type: ignore[no-any-return]

    assert fingerprint(made()) == fingerprint(made())
    assert fingerprint(made()) != fingerprint(made(eta=0.5))
    assert fingerprint(made()) != fingerprint(private(strategy=FedAvg()))
    assert fingerprint(private(noise_seed=None)) == fingerprint(private(noise_seed=None))
    assert "123456789" not in str(fingerprint(made()))
    assert "123456789" not in repr(made()) + str(vars(made()))


def test_a_run_that_was_not_private_before_is_not_called_private_now() -> None:
    for state in (FedAvg().state_dict(), FedAdam().state_dict()):
        with pytest.raises(NotPrivateBefore, match="Begin anew"):
            private().load_state_dict(state)


def test_the_wrapped_strategys_state_is_saved() -> None:
    strategy = private(strategy=FedAdam(), noise_multiplier=1.0)
    model: NDArrays = [np.zeros(2)]
    model, _ = after(strategy, model, LOUD)
    resumed = private(strategy=FedAdam(), noise_multiplier=1.0)
    resumed.load_state_dict(decode_state(encode_state(strategy.state_dict())))
    expected, _ = after(strategy, model, LOUD, 2)
    got, _ = after(resumed, model, LOUD, 2)
    assert got[0].tobytes() == expected[0].tobytes()


def test_the_rest_is_the_wrapped_strategys() -> None:
    inner = FedAvg(
        initial_parameters=ndarrays_to_parameters(ZERO), evaluate_fn=lambda *_: (0.5, {})
    )
    inner.cast = "like sent"
    strategy = private(strategy=inner)
    assert (strategy.cast, strategy.min_available_clients) == ("like sent", 2)
    clients = manager_of("a", "b")
    assert strategy.initialize_parameters(clients) == ndarrays_to_parameters(ZERO)
    assert strategy.evaluate(1, ndarrays_to_parameters(ZERO)) == (0.5, {})
    assert len(strategy.configure_evaluate(1, ndarrays_to_parameters(ZERO), clients)) == 2
    assert strategy.aggregate_evaluate(1, [], []) == (None, {})
    assert repr(strategy) == f"{type(strategy).__name__}(FedAvg(accept_failures=True))"
    assert strategy.aggregate_fit(1, [], []) == (None, {})
