"""SCAFFOLD: its steps on paper, where it goes, and that c is the mean of all c_i at all times."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.client.learning.variates import StoredVariates
from flmq.common import FitRes, Metrics, Parameters, Scalar, parameters_to_ndarrays
from flmq.common.errors import ZeroWeight
from flmq.journal.state import decode_state, encode_state
from flmq.server.strategy import (
    SCAFFOLD,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    LateReplies,
)
from flmq.server.strategy.options import InvalidStrategyOption
from tests.server.proxies import fit_res, manager_of, model
from tests.server.strategy.heterogeneous.quadratics import (
    ETA,
    Quadratic,
    ScaffoldQuadratic,
    number,
    rounds,
)

CURVES = {"a": (1.0, 0.0), "b": (4.0, 1.0)}
STEPS = 10


def clients(folder: Path, **curves: tuple[float, float]) -> dict[str, NumPyClient]:
    return {
        name: ScaffoldQuadratic(folder / name, *curve, STEPS)
        for name, curve in (curves or CURVES).items()
    }


def variates(strategy: SCAFFOLD) -> tuple[list[Any], dict[str, str]]:
    state = strategy.state_dict()
    return state["c"], state["counted"]


def test_two_rounds_of_two_clients_on_paper(tmp_path: Path) -> None:
    """``a_i / 2 (x - b_i)^2``, K steps of eta from x, by the lines of Algorithm 1.

    Round 1: c = c_i = 0, so client i goes to ``b_i + (1 - eta a_i)^K (x - b_i)``. Then c_i is
    ``(x - y_i) / (K eta)``, c their mean, and x the mean of y_i. In round 2 a step is
    ``y -= eta (a_i (y - b_i) - c_i + c)``.
    """
    x, c, c_i = 0.5, 0.0, {"a": 0.0, "b": 0.0}
    for _ in range(2):
        dy, dc = [], []
        for name, (a, b) in CURVES.items():
            y = x
            for _ in range(STEPS):
                y -= ETA * (a * (y - b) - c_i[name] + c)
            new = c_i[name] - c + (x - y) / (STEPS * ETA)
            dy.append(y - x)
            dc.append(new - c_i[name])
            c_i[name] = new
        x, c = x + 0.8 * sum(dy) / 2, c + 2 / 2 * sum(dc) / 2
    strategy = SCAFFOLD(num_clients=2, eta_g=0.8)
    (got,) = rounds(strategy, clients(tmp_path), number(0.5), (1, 2))
    assert got.tolist() == pytest.approx([x], rel=1e-12)
    assert variates(strategy)[0][0].tolist() == pytest.approx([c], rel=1e-12)


def test_it_goes_to_the_optimum_where_fedavg_does_not(tmp_path: Path) -> None:
    """Optimum: ``sum a_i b_i / sum a_i`` = 4 / 5.

    FedAvg stops where ``sum (1 - (1 - eta a_i)^K) (x - b_i) = 0``: with q = 1 - 0.9^10 = 0.651 and
    1 - 0.6^10 = 0.994 at 0.994 / 1.645 = 0.604. In SCAFFOLD's fixed point each c_i is client i's
    gradient, c their mean, 0, and no client moves.
    """
    (plain,) = rounds(
        FedAvg(), {n: Quadratic(*c, STEPS) for n, c in CURVES.items()}, number(0), range(1, 200)
    )
    q = [1 - (1 - ETA * a) ** STEPS for a, _ in CURVES.values()]
    assert plain[0] == pytest.approx(q[1] / sum(q), rel=1e-9)
    strategy = SCAFFOLD(num_clients=2)
    (got,) = rounds(strategy, clients(tmp_path), number(0), range(1, 60))
    assert got[0] == pytest.approx(0.8, rel=1e-6)
    assert variates(strategy)[0][0][0] == pytest.approx(0.0, abs=1e-6)


def mean_of_counted(strategy: SCAFFOLD, folder: Path, num_clients: int) -> float:
    """``(1 / N) sum c_i``, of the variates that the server counts, from the clients' folders."""
    c, counted = variates(strategy)
    found = [StoredVariates(folder / name).load(digest, c) for name, digest in counted.items()]
    return float(sum(each[0][0] for each in found) / num_clients)


def test_c_is_the_mean_of_all_variates_whatever_is_repeated_or_does_not_count(
    tmp_path: Path,
) -> None:
    """Of 5 clients 3 are asked a round; of their tasks some are done twice, some replies lost."""
    rng = np.random.default_rng(8)

    def fate(client_id: str, fit: Callable[[], FitRes]) -> FitRes | None:
        what, res = rng.integers(4), fit()
        if what == 0:
            again = fit()  # as after a kill: the same bits
            assert again == res
        return None if what == 1 else res

    curves = {name: (1.0 + number / 4, float(number)) for number, name in enumerate("abcde")}
    strategy = SCAFFOLD(num_clients=5, fraction_fit=0.6, min_fit_clients=1, min_available_clients=1)
    x = number(0.0)
    for server_round in range(1, 26):
        x = rounds(strategy, clients(tmp_path, **curves), x, [server_round], fate)
        strategy_c = variates(strategy)[0][0][0]
        assert strategy_c == pytest.approx(mean_of_counted(strategy, tmp_path, 5), abs=1e-12)
        for name in curves:  # one that counts, and one that may
            assert len(list((tmp_path / name).glob("scaffold/*"))) <= 2
    optimum = sum(a * b for a, b in curves.values()) / sum(a for a, _ in curves.values())
    assert x[0][0] == pytest.approx(optimum, abs=0.2)
    x = rounds(strategy, clients(tmp_path, **curves), x, range(26, 80), fate)
    assert x[0][0] == pytest.approx(optimum, abs=1e-3)


def test_a_round_that_fails_counts_no_variate(tmp_path: Path) -> None:
    strategy = SCAFFOLD(num_clients=2, accept_failures=False)

    def fate(client_id: str, fit: Callable[[], FitRes]) -> FitRes | None:
        res = fit()
        if client_id == "b":
            raise RuntimeError("broken")
        return res

    x = rounds(strategy, clients(tmp_path), number(0), [1], fate)
    assert x[0].tolist() == [0.0]
    assert variates(strategy) == ([np.zeros(1)], {})
    got = rounds(strategy, clients(tmp_path), x, [2])
    expected = rounds(SCAFFOLD(num_clients=2), clients(tmp_path / "other"), number(0), [2])
    assert got[0].tobytes() == expected[0].tobytes()


def test_metrics_that_fail_a_round_leave_c_as_it_was(tmp_path: Path) -> None:
    def fails(metrics: list[tuple[int, Metrics]]) -> Metrics:
        raise ZeroWeight("no metrics")

    strategy = SCAFFOLD(num_clients=2, fit_metrics_aggregation_fn=fails)
    with pytest.raises(ZeroWeight):
        rounds(strategy, clients(tmp_path), number(0), [1])
    assert variates(strategy) == ([np.zeros(1)], {})


def test_a_client_that_lost_its_folder_fails_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy, seen = SCAFFOLD(num_clients=2), []

    def fate(client_id: str, fit: Callable[[], FitRes]) -> FitRes | None:
        try:
            return fit()
        except Exception as error:
            seen.append((client_id, type(error).__name__, str(error)))
            raise

    x = rounds(strategy, clients(tmp_path), number(0), [1])
    shutil.rmtree(tmp_path / "b")
    rounds(strategy, clients(tmp_path), x, [2, 3], fate)
    assert [each[:2] for each in seen] == [("b", "LostVariate")] * 2
    assert "is not there: bring the folder back, or begin all" in seen[0][2]
    assert set(variates(strategy)[1]) == {"a", "b"}


def test_all_begin_at_zero_once_one_lost_its_own_if_asked_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = SCAFFOLD(num_clients=2, restart_lost=True)
    x = rounds(strategy, clients(tmp_path), number(0), range(1, 4))
    shutil.rmtree(tmp_path / "b")
    x = rounds(strategy, clients(tmp_path), x, [4])
    assert variates(strategy) == ([], {})
    assert "all control variates begin at zero: b lost its own" in caplog.text
    x = rounds(strategy, clients(tmp_path), x, [5])
    assert variates(strategy)[0][0][0] == pytest.approx(mean_of_counted(strategy, tmp_path, 2))
    x = rounds(strategy, clients(tmp_path), x, range(6, 60))
    assert x[0][0] == pytest.approx(0.8, rel=1e-6)


def test_clients_evaluate_x_alone_and_train_from_x_and_c() -> None:
    strategy = SCAFFOLD(num_clients=3)
    start = model(np.ones(2, np.float32), np.array(3))
    manager = manager_of("a", "b", "c")
    asked = strategy.configure_fit(1, start, manager)
    sent = [parameters_to_ndarrays(ins.parameters) for _, ins in asked]
    assert [(x.dtype.name, x.tolist()) for x in sent[0]] == [
        ("float32", [1.0, 1.0]),
        ("int64", 3),
        ("float32", [0.0, 0.0]),
        ("float64", 0.0),
    ]
    assert all(ins.parameters is asked[0][1].parameters for _, ins in asked), "published once"
    assert all(ins.config == {"control_variate": ""} for _, ins in asked)
    assert all(ins.parameters is start for _, ins in strategy.configure_evaluate(1, start, manager))


def test_variates_are_named_after_their_tensors() -> None:
    start = Parameters(model([1.0]).tensors, "numpy.ndarray", ("layer.weight",))
    ((_, ins), *_) = SCAFFOLD(num_clients=2).configure_fit(1, start, manager_of("a", "b"))
    assert ins.parameters.names == ("layer.weight", "variate of layer.weight")


def test_state_goes_through_the_journal_and_another_number_of_clients_scales_c(
    tmp_path: Path,
) -> None:
    strategy = SCAFFOLD(num_clients=2)
    x = rounds(strategy, clients(tmp_path), number(0.3), range(1, 3))
    saved = decode_state(encode_state(strategy.state_dict()))
    same, more = SCAFFOLD(num_clients=2), SCAFFOLD(num_clients=4)
    same.load_state_dict(saved)
    more.load_state_dict(saved)
    assert encode_state(same.state_dict()) == encode_state(strategy.state_dict())
    assert variates(more)[0][0] == variates(strategy)[0][0] / 2
    assert rounds(same, clients(tmp_path), x, [3])[0].tobytes() == (
        rounds(strategy, clients(tmp_path), x, [3])[0].tobytes()
    )


def test_variates_of_a_bfloat16_model_are_float32(tmp_path: Path) -> None:
    strategy = SCAFFOLD(num_clients=2)
    (got,) = rounds(strategy, clients(tmp_path), [np.zeros(1, ml_dtypes.bfloat16)], range(1, 30))
    assert got.dtype == ml_dtypes.bfloat16
    assert variates(strategy)[0][0].dtype == np.float32
    assert float(got[0]) == pytest.approx(0.8, abs=0.01)


def test_it_cannot_be_wrapped_in_differential_privacy() -> None:
    with pytest.raises(InvalidStrategyOption, match="do not send models like the one"):
        DifferentialPrivacyServerSideFixedClipping(
            SCAFFOLD(num_clients=2),
            noise_multiplier=1.0,
            clipping_norm=1.0,
            num_sampled_clients=2,
        )


@pytest.mark.parametrize("digest", [None, "", "00", "g" * 64, "A" * 64, b"0" * 64, 3, "0" * 10**6])
def test_a_reply_that_names_no_variate_is_refused(digest: Scalar | None) -> None:
    metrics = {} if digest is None else {"control_variate": digest}
    reason = SCAFFOLD(num_clients=1).check_fit_res(fit_res(model([1.0]), 1, metrics))
    assert reason is not None
    assert "ScaffoldClient" in reason
    assert len(reason) < 250


@pytest.mark.parametrize(
    "options", [{"num_clients": 0}, {"num_clients": 2.5}, {"num_clients": 2, "eta_g": 0}]
)
def test_options_out_of_their_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidStrategyOption, match="give a"):
        SCAFFOLD(**options)


def test_more_clients_than_there_are_said_to_be_and_late_replies_end_the_run() -> None:
    with pytest.raises(InvalidStrategyOption, match="num_clients is 2, and 3 clients take part"):
        SCAFFOLD(num_clients=2).configure_fit(1, model([1.0]), manager_of("a", "b", "c"))
    strategy = SCAFFOLD(num_clients=2)
    strategy.late_replies = LateReplies.NEXT_ROUND
    with pytest.raises(InvalidStrategyOption, match="late_replies"):
        strategy.configure_fit(1, model([1.0]), manager_of("a", "b"))
