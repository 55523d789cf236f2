"""Replies cast to the dtype that was sent: rounded once, or refused by the tensor's name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flmq.common import NDArray, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.server.strategy import FedAvg
from flmq.server.strategy.casting import cast_like
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.reply_check import spec_of


def cast(value: Any, to: str) -> NDArray | str:
    """One reply tensor, cast to a model of one tensor."""
    value = np.asarray(value)
    got = cast_like(spec_of(sent(np.zeros(value.shape, to))), sent(value))
    return got if isinstance(got, str) else parameters_to_ndarrays(got)[0]


def sent(*tensors: NDArray) -> Parameters:
    return ndarrays_to_parameters(list(tensors), names=tuple("wxyz"[: len(tensors)]))


@pytest.mark.parametrize(
    ("value", "to", "result"),
    [
        # 1 + 2**-8 is in the middle of two bfloat16 numbers, and 2**-40 more is nearer to the
        # upper: by way of float32 it would be lost.
        (1 + 2.0**-8 + 2.0**-40, "bfloat16", 1 + 2.0**-7),
        (np.float32(1 + 2**-8), "bfloat16", 1.0),
        (np.array(1.5, "bfloat16"), "float32", 1.5),
        (np.array(1.5, "float8_e5m2"), "float16", 1.5),
        (np.array([17.0, 1e-9]), "float8_e4m3fn", [16.0, 0.0]),
        (2.0**-1074, "float32", 0.0),
        ([-0.0], "bfloat16", [0.0]),
    ],
)
def test_floats_are_rounded_once(value: Any, to: str, result: Any) -> None:
    got = cast(value, to)
    assert not isinstance(got, str)
    assert got.dtype == np.dtype(to)
    assert got.astype(np.float64).tolist() == result


@pytest.mark.parametrize(
    ("value", "to"), [(1e39, "float32"), (3.4e38, "bfloat16"), (465.0, "float8_e4m3fn")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_become_infinite_is_refused(value: float, to: str, sign: int) -> None:
    said = cast([0.0, sign * value], to)
    assert said == (
        f"tensor w has numbers beyond {to}, to which it is cast from float64: scale or clip them, "
        f"or train in {to}"
    )


@pytest.mark.parametrize(
    ("value", "to"),
    [
        (np.arange(3), "float32"),
        (np.zeros(3), "int64"),
        (np.zeros(3, bool), "float32"),
        (np.zeros(3, np.complex64), "bfloat16"),
        (np.zeros(3, np.longdouble), "float32"),
        (np.zeros(3, "float32"), "float32"),
    ],
)
def test_nothing_else_is_cast(value: NDArray, to: str) -> None:
    reply = sent(value)
    assert cast_like(spec_of(sent(np.zeros(3, to))), reply) is reply


def test_numbers_that_are_none_stay_for_the_check_to_name() -> None:
    got = cast([np.nan, np.inf], "bfloat16")
    assert not isinstance(got, str)
    assert not np.isfinite(got.astype(np.float32)).any()


def test_what_does_not_fit_otherwise_stays_for_the_check_to_name() -> None:
    model = spec_of(sent(np.zeros(3, "bfloat16")))
    for other in (
        sent(np.zeros(3), np.zeros(3)),
        Parameters([b"no array"], "numpy.ndarray"),
        Parameters([b""], "own"),
    ):
        assert cast_like(model, other) is other


def test_only_tensors_that_differ_are_cast_and_shapes_stay() -> None:
    model = [np.zeros((2, 3), "bfloat16"), np.array(3), np.zeros(0, "bfloat16"), np.ones(())]
    reply = [np.asfortranarray(np.ones((2, 3))), np.array(4), np.zeros(0), np.ones(())]
    got = cast_like(spec_of(sent(*model)), sent(*reply))
    assert isinstance(got, Parameters)
    assert got.names == tuple("wxyz")
    arrays = parameters_to_ndarrays(got)
    assert [(a.dtype, a.shape) for a in arrays] == [(m.dtype, m.shape) for m in model]
    assert arrays[1] == 4


def test_the_option_is_checked() -> None:
    with pytest.raises(InvalidStrategyOption, match=r"cast is 'bfloat16': give \"like sent\""):
        FedAvg(cast="bfloat16")
