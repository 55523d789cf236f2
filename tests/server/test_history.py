"""The history: Flower's attributes, and a stored form that loses nothing."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import InvalidReturnValue, StoredDataError
from flmq.common.typing import Scalar
from flmq.server.history import History


def example() -> History:
    history = History()
    history.add_loss_distributed(1, 0.5)
    history.add_loss_distributed(2, 0.25)
    history.add_loss_centralized(0, 2.0)
    history.add_metrics_distributed_fit(1, {"acc": 0.5})
    history.add_metrics_distributed(1, {"acc": 0.75, "note": "x"})
    history.add_metrics_centralized(0, {"acc": 0.1})
    return history


def test_series_are_where_users_of_flower_look_for_them() -> None:
    history = example()
    history.add_metrics_centralized(1, {"acc": 0.2, "f1": 0.3})
    assert history.losses_distributed == [(1, 0.5), (2, 0.25)]
    assert history.losses_centralized == [(0, 2.0)]
    assert history.metrics_distributed_fit == {"acc": [(1, 0.5)]}
    assert history.metrics_distributed == {"acc": [(1, 0.75)], "note": [(1, "x")]}
    assert history.metrics_centralized == {"acc": [(0, 0.1), (1, 0.2)], "f1": [(1, 0.3)]}


def test_it_shows_itself_as_flowers_does() -> None:
    """Recorded from flwr 1.41's ``repr`` of the same history."""
    assert repr(example()) == (
        "History (loss, distributed):\n\tround 1: 0.5\n\tround 2: 0.25\n"
        "History (loss, centralized):\n\tround 0: 2.0\n"
        "History (metrics, distributed, fit):\n{'acc': [(1, 0.5)]}\n"
        "History (metrics, distributed, evaluate):\n"
        "{'acc': [(1, 0.75)], 'note': [(1, 'x')]}\n"
        "History (metrics, centralized):\n{'acc': [(0, 0.1)]}"
    )
    assert repr(History()) == ""


def test_histories_are_equal_by_what_they_hold() -> None:
    assert example() == example()
    other = example()
    other.add_loss_centralized(1, 1.0)
    assert example() != other
    assert example() != "a history"
    undefined, again = History(), History()
    undefined.add_loss_centralized(1, float("nan"))
    again.add_loss_centralized(1, float("nan"))
    assert undefined == again


def test_numpys_scalars_become_pythons() -> None:
    history = History()
    history.add_loss_centralized(0, np.float32(0.5))  # type: ignore[arg-type]
    history.add_metrics_centralized(0, {"acc": np.float64(0.25), "n": np.int64(3)})  # type: ignore[dict-item]
    assert type(history.losses_centralized[0][1]) is float
    assert [type(series[0][1]) for series in history.metrics_centralized.values()] == [float, int]


def test_a_metric_that_is_no_scalar_is_refused_by_name() -> None:
    with pytest.raises(InvalidReturnValue, match=r"round 3 hold 'confusion': list \[\[1, 2\]\]"):
        History().add_metrics_centralized(3, {"confusion": [[1, 2]]})  # type: ignore[dict-item]


scalars = (
    st.booleans()
    | st.binary(max_size=8)
    | st.floats()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=8)
)
rounds = st.integers(0, 1000)


def kind_and_value(series: list[tuple[int, Scalar]]) -> list[tuple[int, type, str]]:
    """Apart what ``==`` takes for the same: 1, 1.0 and True; 0.0 and -0.0; NaN and itself."""
    return [(server_round, type(value), repr(value)) for server_round, value in series]


@given(
    losses=st.lists(st.tuples(rounds, st.floats()), max_size=5),
    metrics=st.lists(
        st.tuples(rounds, st.dictionaries(st.text(max_size=5), scalars, max_size=4)), max_size=5
    ),
)
def test_what_json_gives_back_is_the_same_to_the_last_bit(
    losses: list[tuple[int, float]], metrics: list[tuple[int, dict[str, Scalar]]]
) -> None:
    history = History()
    for server_round, loss in losses:
        history.add_loss_distributed(server_round, loss)
        history.add_loss_centralized(server_round, loss)
    for server_round, values in metrics:
        history.add_metrics_distributed_fit(server_round, values)
        history.add_metrics_distributed(server_round, values)
        history.add_metrics_centralized(server_round, values)
    text = json.dumps(history.to_dict(), allow_nan=False)
    back = History.from_dict(json.loads(text))
    assert back == history
    assert kind_and_value(list(back.losses_distributed)) == kind_and_value(
        list(history.losses_distributed)
    )
    for name, series in history.metrics_distributed.items():
        assert kind_and_value(back.metrics_distributed[name]) == kind_and_value(series)
        assert kind_and_value(back.metrics_centralized[name]) == kind_and_value(series)
        assert kind_and_value(back.metrics_distributed_fit[name]) == kind_and_value(series)


def test_bytes_and_what_json_has_no_number_for_are_marked() -> None:
    history = History()
    history.add_metrics_centralized(1, {"digest": b"\x00\xff", "loss": -math.inf})
    assert history.to_dict()["metrics_centralized"] == {
        "digest": [[1, {"bytes": "AP8="}]],
        "loss": [[1, {"float": "-inf"}]],
    }


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert History.from_dict(example().to_dict() | {"seconds": [1.0]}) == example()


def _without_losses(stored: dict[str, Any]) -> None:
    del stored["losses_distributed"]


def _with_a_list_for_metrics(stored: dict[str, Any]) -> None:
    stored["metrics_centralized"] = [1]


def _with_a_nested_value(stored: dict[str, Any]) -> None:
    stored["losses_centralized"] = [[1, [2]]]


def _with_bad_base64(stored: dict[str, Any]) -> None:
    stored["metrics_centralized"] = {"digest": [[1, {"bytes": "?"}]]}


def _with_half_a_pair(stored: dict[str, Any]) -> None:
    stored["losses_centralized"] = [[1]]


@pytest.mark.parametrize(
    "damage",
    [
        _without_losses,
        _with_a_list_for_metrics,
        _with_a_nested_value,
        _with_bad_base64,
        _with_half_a_pair,
    ],
)
def test_what_is_no_history_is_a_typed_error(damage: Any) -> None:
    stored = copy.deepcopy(example().to_dict())
    damage(stored)
    with pytest.raises(StoredDataError, match="not a history"):
        History.from_dict(stored)
