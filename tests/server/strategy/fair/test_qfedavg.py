"""QFedAvg: its formula by hand, Flower's numbers, and losses that clients send."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from flmq.common import NDArrays
from flmq.common.errors import InconsistentTensors, NonFiniteValues
from flmq.server.strategy import QFedAvg
from flmq.server.strategy.fair import NoLoss
from flmq.server.strategy.options import InvalidStrategyOption
from tests.server.proxies import fit_res, model
from tests.server.strategy.oracle import Reply, round_of_ours, same_as_flower


def loss_of(value: float) -> Any:
    return lambda server_round, arrays, config: (value, {})


def test_two_clients_by_hand() -> None:
    """q = 1, learning rate 1/2, so L = 2; w = 1.

    Client a has loss 3 and sends 0: its difference is 1, delta = 3 * 2 * 1 = 6, h = 1 * 4 * 1 + 2 *
    3 = 10. Client b has loss 1 and sends 2: -1, delta = -2, h = 4 + 2 = 6. w = 1 - (6 - 2) / 16:
    nearer to what the client with the larger loss sent.
    """
    strategy = QFedAvg(q_param=1.0, qffl_learning_rate=0.5, loss_metric="loss")
    replies: list[Reply] = [
        ([np.array([0.0])], 1, {"loss": 3.0}),
        ([np.array([2.0])], 99, {"loss": 1.0}),
    ]
    made, _ = round_of_ours(strategy, 1, [np.array([1.0])], replies)
    assert made is not None
    assert made[0].tolist() == pytest.approx([0.75], rel=1e-9)


def test_with_q_0_it_is_the_plain_mean_whatever_the_losses() -> None:
    """h_k = L, delta_k = L (w - w_k): w - (sum L (w - w_k)) / (K L)."""
    strategy = QFedAvg(q_param=0.0, loss_metric="loss")
    replies: list[Reply] = [
        ([np.array([value])], 5, {"loss": loss})
        for value, loss in ((1.0, 0.0), (3.0, 7), (8.0, 2.5))
    ]
    made, _ = round_of_ours(strategy, 1, [np.array([2.0])], replies)
    assert made is not None
    assert made[0].tolist() == pytest.approx([4.0], rel=1e-12)


def arrays(rng: np.random.Generator, dtype: Any) -> NDArrays:
    return [rng.normal(size=(40, 30)).astype(dtype), np.asarray(rng.normal(size=7), dtype)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options", [{}, {"q_param": 2.0, "qffl_learning_rate": 0.01}, {"q_param": 0.0}]
)
def test_with_the_servers_loss_numbers_are_flowers(options: dict[str, Any], dtype: Any) -> None:
    rng = np.random.default_rng(5)
    rounds: list[list[Reply]] = [[(arrays(rng, dtype), n) for n in (3, 1, 12)] for _ in range(3)]
    same_as_flower(QFedAvg, arrays(rng, dtype), rounds, evaluate_fn=loss_of(1.7), **options)


def test_without_any_loss_the_round_fails_and_says_what_to_give() -> None:
    replies: list[Reply] = [([np.ones(2)], 1)]
    with pytest.raises(NoLoss, match=r"the server is None.*give evaluate_fn, or loss_metric"):
        round_of_ours(QFedAvg(), 1, [np.zeros(2)], replies)
    with pytest.raises(NoLoss, match="client-000 is None"):
        round_of_ours(QFedAvg(loss_metric="loss"), 1, [np.zeros(2)], replies)


@pytest.mark.parametrize("loss", [None, "1", True, -0.1, math.nan, math.inf, b"1"])
def test_a_reply_with_no_such_loss_is_refused(loss: Any) -> None:
    strategy = QFedAvg(loss_metric="loss")
    metrics = {} if loss is None else {"loss": loss}
    reason = strategy.check_fit_res(fit_res(model([1.0]), 1, metrics))
    assert reason is not None
    assert reason.startswith(f"metrics['loss'] is {loss!r}: return the loss")
    assert QFedAvg().check_fit_res(fit_res(model([1.0]), 1, metrics)) is None
    assert strategy.check_fit_res(fit_res(model([1.0]), 1, {"loss": 2})) is None


def test_what_overflows_fails_the_round() -> None:
    strategy = QFedAvg(loss_metric="loss", q_param=3.0)
    replies: list[Reply] = [([np.ones(2)], 1, {"loss": 1e300})]
    with pytest.raises(NonFiniteValues, match="tensor 0 became NaN or infinity"):
        round_of_ours(strategy, 1, [np.zeros(2)], replies)


def test_other_tensors_than_the_models_fail_the_round() -> None:
    strategy = QFedAvg(evaluate_fn=loss_of(1.0))
    with pytest.raises(InconsistentTensors, match="give initial_parameters"):
        round_of_ours(strategy, 1, [], [([np.ones(2)], 1)])


@pytest.mark.parametrize(
    ("option", "value"), [("q_param", -0.1), ("qffl_learning_rate", 0.0), ("q_param", "1")]
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidStrategyOption, match=f"{option} is {value!r}: give a number"):
        QFedAvg(**{option: value})
