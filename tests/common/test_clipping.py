"""Clipping, and noise that is a function of a secret: closed forms, Flower, hostile numbers."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from flmq.common import NDArray, NDArrays
from flmq.common.clipping import (
    clip_factor,
    clipped,
    moved,
    update_norm,
    updates,
)
from flmq.common.errors import InconsistentTensors, NonFiniteValues
from flmq.common.noise import SECRET_BYTES, add_gaussian, generator, new_secret
from tests.server.strategy.oracle import assert_close, flower


def clip(trained: NDArrays, model: NDArrays, norm: float) -> NDArrays:
    factor = clip_factor(update_norm(trained, model), norm)
    return [
        moved(old, clipped(by, factor))
        for old, by in zip(model, updates(trained, model), strict=True)
    ]


def test_a_whole_model_is_one_vector() -> None:
    """Updates (3, 0) and (4,): of norm 5 together, so clipped to 1 they are (0.6, 0) and (0.8,)."""
    model = [np.array([1.0, 2.0]), np.array([-1.0])]
    trained = [np.array([4.0, 2.0]), np.array([3.0])]
    assert update_norm(trained, model) == 5.0
    assert_close(clip(trained, model, 1.0), [np.array([1.6, 2.0]), np.array([-0.2])])
    assert_close(clip(trained, model, 5.0), trained)


@pytest.mark.parametrize("norm", [0.01, 1.0, 1e6])
def test_it_clips_as_flower_does(norm: float) -> None:
    rng = np.random.default_rng(3)
    model = [rng.normal(size=(4, 3)), rng.normal(size=7)]  # 0-d tensors Flower does not clip
    trained = [x + rng.normal(size=x.shape) for x in model]
    theirs = [x.copy() for x in trained]
    privacy = flower("flwr.supercore.differential_privacy")
    privacy.compute_clip_model_update(theirs, model, norm)
    assert_close(clip(trained, model, norm), theirs, 1e-12)


def test_an_update_of_norm_zero_is_not_divided_by() -> None:
    model = [np.zeros(3, np.float32)]
    assert clip_factor(update_norm(model, model), 0.5) == 1.0
    assert clip(model, model, 0.5)[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [1e200, 1.7e308, 1e-200, 5e-324])
def test_no_finite_number_is_too_large_or_too_small(value: float) -> None:
    """(v, -v) from zero has norm v sqrt 2; from (-v, v) what overflows counts as the largest."""
    model, trained = [np.zeros(2)], [np.array([value, -value])]
    norm = update_norm(trained, model)
    assert norm == pytest.approx(value * math.sqrt(2), rel=1e-9) or value > 1e308 or value < 1e-320
    (there,) = clip(trained, model, 1.0)
    assert np.linalg.norm(there) <= 1.0 + 1e-12
    (far,) = clip(trained, [-trained[0]], 1.0)
    assert np.isfinite(far).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_norm(bad: float) -> None:
    with pytest.raises(NonFiniteValues):
        update_norm([np.array([0.0, bad])], [np.zeros(2)])


def test_other_shapes_have_no_update() -> None:
    with pytest.raises(InconsistentTensors, match="2 tensors where the model has 1"):
        update_norm([np.zeros(1), np.zeros(1)], [np.zeros(1)])
    with pytest.raises(InconsistentTensors, match=r"tensor 0 has shape \(2,\)"):
        update_norm([np.zeros(2)], [np.zeros(3)])


def test_counters_and_masks_take_no_part() -> None:
    model: NDArrays = [np.array(3), np.zeros(2, np.bool_), np.zeros(1, np.float16)]
    trained: NDArrays = [np.array(1000), np.ones(2, np.bool_), np.ones(1, np.float16)]
    assert update_norm(trained, model) == 1.0


def test_a_step_beyond_the_dtype_ends_at_its_edge() -> None:
    for kind in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        there = moved(np.zeros(2, kind), np.array([1e300, -1e300])).astype(np.float64)
        assert np.isfinite(there).all()
        assert there[0] == -there[1] > 400


def drawn(*context: object, secret: bytes = b"k" * 32, size: int = 300_000) -> NDArray:
    numbers = np.zeros(size)
    add_gaussian(numbers, 1.0, generator(secret, *context))
    return numbers


def test_noise_is_a_function_of_its_secret_and_its_context() -> None:
    assert drawn("a", 1).tobytes() == drawn("a", 1).tobytes()
    others = [drawn("a", 2), drawn("b", 1), drawn("a", 1, secret=b"l" * 32)]
    for other in others:
        # Independent: |r| sqrt(N) is standard normal, above 5.2 once in five million.
        assert abs(np.corrcoef(drawn("a", 1), other)[0, 1]) < 5.2 / math.sqrt(other.size)


def test_the_bits_of_noise_do_not_depend_on_how_much_is_drawn() -> None:
    assert drawn("a")[:1000].tobytes() == drawn("a", size=1000).tobytes()


def test_secrets_are_long_and_all_different() -> None:
    assert len({new_secret(), new_secret(), new_secret(1), new_secret(2)}) == 4
    assert new_secret(1) == new_secret(1)
    assert len(new_secret()) == len(new_secret(1)) == SECRET_BYTES
