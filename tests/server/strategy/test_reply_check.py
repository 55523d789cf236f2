"""Which replies count: each thing that can be wrong with one, and what its sender is told."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common import NDArray, Parameters, ndarrays_to_parameters
from flmq.server.strategy.reply_check import ReplyCheck, check_evaluate_reply, check_fit_reply
from tests.server.proxies import evaluate_res, fit_res

NONE, FINITE, LIKE_SENT = ReplyCheck.NONE, ReplyCheck.FINITE, ReplyCheck.LIKE_SENT

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.zeros(3, dtype=np.float32)
STEPS = np.array(7, dtype=np.int64)
SENT = ndarrays_to_parameters([WEIGHTS, BIAS, STEPS])


def reason(*tensors: NDArray, check: ReplyCheck = LIKE_SENT, sent: Parameters = SENT) -> str | None:
    return check_fit_reply(sent, fit_res(ndarrays_to_parameters(list(tensors)), 10), check)


@pytest.mark.parametrize("check", ReplyCheck)
def test_a_reply_like_what_was_sent_counts(check: ReplyCheck) -> None:
    assert reason(WEIGHTS + 1, BIAS - 1, STEPS + 1, check=check) is None


def test_memory_order_does_not_matter() -> None:
    assert reason(np.asfortranarray(WEIGHTS), BIAS, STEPS) is None


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (
            (WEIGHTS, BIAS),
            "2 tensors came, the model has 3: return all of the model's tensors, in their order",
        ),
        (
            (WEIGHTS, BIAS.astype(np.float64), STEPS),
            "tensor 1 is float64, the model's is float32: cast before returning, with .astype(",
        ),
        (
            (WEIGHTS, BIAS[:1], STEPS),
            "tensor 1 has shape (1,), the model's has (3,): return the model's tensors, in ",
        ),
        (
            (WEIGHTS.T, BIAS, STEPS),
            "tensor 0 has shape (3, 2), the model's has (2, 3): return the model's tensors, in ",
        ),
        ((WEIGHTS, BIAS, STEPS.reshape(1)), "tensor 2 has shape (1,), the model's has ()"),
        ((WEIGHTS, BIAS, STEPS.astype(np.int32)), "tensor 2 is int32, the model's is int64"),
    ],
)
def test_a_reply_unlike_what_was_sent_says_where_and_what_to_do(
    tensors: tuple[NDArray, ...], expected: str
) -> None:
    got = reason(*tensors)
    assert got is not None
    assert got.startswith(expected)
    assert reason(*tensors, check=FINITE) is None
    assert reason(*tensors, check=NONE) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64])
def test_a_value_that_is_not_finite_is_found(value: float, dtype: type) -> None:
    sent = ndarrays_to_parameters([np.zeros((2, 3), dtype)])
    bad: NDArray = np.zeros((2, 3), dtype)
    bad[1, 1] = value
    for check in (LIKE_SENT, FINITE):
        got = reason(bad, check=check, sent=sent)
        assert got is not None
        assert got.startswith("tensor 0 holds NaN or infinity (first at flat position 4): ")
    assert reason(bad, check=NONE, sent=sent) is None


@given(
    size=st.sampled_from([1, 65535, 65536, 65537, 200_000]),
    place=st.floats(0, 1, exclude_max=True),
)
def test_it_is_found_wherever_it_is(size: int, place: float) -> None:
    """Also in the first, last and any other block that the check works in."""
    at = int(place * size)
    values = np.zeros(size, np.float32)
    sent = ndarrays_to_parameters([values])
    assert reason(values, sent=sent) is None
    values[at] = np.nan
    got = reason(values, sent=sent)
    assert got is not None
    assert f"flat position {at})" in got


def test_the_largest_and_smallest_finite_numbers_count() -> None:
    edge = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max, 1e-45, -0.0], np.float32)
    assert reason(edge, sent=ndarrays_to_parameters([edge])) is None


def test_a_big_tensor_is_checked_without_a_copy() -> None:
    big = ndarrays_to_parameters([np.zeros(4_000_000, np.float32)])
    tracemalloc.start()
    try:
        assert check_fit_reply(big, fit_res(big, 1), LIKE_SENT) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000, "16 MB of values were looked at"


@pytest.mark.parametrize("num_examples", [0, -1])
@pytest.mark.parametrize("check", ReplyCheck)
def test_a_reply_without_examples_has_no_weight(num_examples: int, check: ReplyCheck) -> None:
    got = check_fit_reply(SENT, fit_res(SENT, num_examples), check)
    assert got is not None
    assert got.startswith(f"num_examples is {num_examples}: ")
    assert "return the number of examples" in got


def test_where_nothing_was_sent_only_finiteness_counts() -> None:
    nothing = Parameters([], "")
    assert reason(WEIGHTS, BIAS, sent=nothing) is None
    got = reason(BIAS + np.nan, sent=nothing)
    assert got is not None
    assert "NaN" in got
    assert check_fit_reply(nothing, fit_res(nothing, 1), LIKE_SENT) is None


@pytest.mark.parametrize(
    "tensor",
    [b"", b"garbage", SENT.tensors[0][:-1], SENT.tensors[0] + b"\0", b"\x80\x04N."],
    ids=["empty", "garbage", "truncated", "trailing", "pickle"],
)
@pytest.mark.parametrize("check", [LIKE_SENT, FINITE])
def test_bytes_that_are_no_array_are_a_reason_not_an_exception(
    tensor: bytes, check: ReplyCheck
) -> None:
    parameters = Parameters([SENT.tensors[0], tensor, SENT.tensors[2]], "numpy.ndarray")
    got = check_fit_reply(SENT, fit_res(parameters, 1), check)
    assert got is not None
    assert got.startswith("tensor 1 cannot be read (")


def test_tensors_of_the_users_own_format_are_compared_by_type_and_number() -> None:
    own = Parameters([b"one", b"two"], "own")
    assert check_fit_reply(own, fit_res(Parameters([b"1", b"2"], "own"), 1), LIKE_SENT) is None
    fewer = check_fit_reply(own, fit_res(Parameters([b"1"], "own"), 1), LIKE_SENT)
    other = check_fit_reply(own, fit_res(SENT, 1), LIKE_SENT)
    assert fewer is not None
    assert fewer.startswith("1 tensors came, the model has 2")
    assert other is not None
    assert other.startswith("tensors are of type 'numpy.ndarray', the model's of 'own'")


def test_a_loss_must_be_finite_and_weigh_something() -> None:
    assert check_evaluate_reply(evaluate_res(0.5, 1)) is None
    for loss in (math.nan, math.inf, -math.inf):
        got = check_evaluate_reply(evaluate_res(loss, 1))
        assert got is not None
        assert got.startswith(f"loss is {loss}: ")
    weightless = check_evaluate_reply(evaluate_res(0.5, 0))
    assert weightless is not None
    assert weightless.startswith("num_examples is 0: ")
