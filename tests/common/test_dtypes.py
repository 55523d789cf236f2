"""Rounded once to a narrow float: against all its numbers, and the middle between any two."""

from __future__ import annotations

import numpy as np
import pytest

from flmq.common.dtypes import (
    NARROW_FLOATS,
    FloatFormat,
    first_not_finite,
    is_float,
    nearest,
    rounded,
)
from flmq.common.typing import NDArray

every_narrow = pytest.mark.parametrize("dtype", NARROW_FLOATS.values(), ids=NARROW_FLOATS)


def numbers_of(dtype: np.dtype[np.generic]) -> NDArray:
    """Its finite numbers as float64, ascending, without zeros of either sign twice."""
    bits = np.arange(1 << (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    with np.errstate(all="ignore"):
        wide = bits.view(dtype).astype(np.float64)
    return np.unique(wide[np.isfinite(wide)])


@every_narrow
def test_to_the_nearest_and_of_two_to_the_even_one(dtype: np.dtype[np.generic]) -> None:
    numbers = numbers_of(dtype)
    below, above = numbers[:-1], numbers[1:]
    middle = (below + above) / 2
    bits = {
        side: values.astype(dtype).view(f"u{dtype.itemsize}")
        for side, values in (("below", below), ("above", above))
    }
    even = np.where(bits["below"] & 1 == 0, below, above)
    assert (bits["below"] & 1 != bits["above"] & 1).all()
    for values, want in (
        (numbers, numbers),
        (middle, even),
        (np.nextafter(middle, np.inf), above),
        (np.nextafter(middle, -np.inf), below),
    ):
        assert rounded(values, dtype).astype(np.float64).tolist() == want.tolist()
        assert rounded(values, dtype).dtype == dtype


@every_narrow
def test_its_format_is_that_of_its_least_and_largest_number(dtype: np.dtype[np.generic]) -> None:
    numbers = numbers_of(dtype)
    form = FloatFormat.of(dtype)
    assert numbers[numbers > 0][0] == 2.0**form.min_exp
    assert is_float(dtype)
    one_up = numbers[numbers > 1][0] - 1
    assert one_up == 2.0 ** (1 - form.precision)


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
def test_what_is_too_large_or_no_number_stays_none(name: str) -> None:
    dtype = NARROW_FLOATS[name]
    wide = np.array([np.inf, -np.inf, np.nan, 1e300, -0.0, -1e-300])
    got = rounded(wide, dtype).astype(np.float64)
    assert not np.isfinite(got[:4]).any()
    assert got[4:].tolist() == [0, 0]
    assert np.signbit(got[4:]).all()


def test_shape_and_memory_order_stay() -> None:
    dtype = NARROW_FLOATS["bfloat16"]
    grid = np.arange(12.0).reshape(3, 4) / 7
    for values in (grid, grid.T, grid[::2, ::-1], grid[0, 0], grid[:0], np.float32(1) / 3):
        assert np.array_equal(rounded(np.asarray(values), dtype), values.astype(dtype))


@pytest.mark.parametrize("dtype", [*NARROW_FLOATS, "float16", "float32", "float64", "complex64"])
def test_what_is_not_finite_is_found(dtype: str) -> None:
    values = np.zeros(100_000, dtype)
    assert first_not_finite(values) is None
    values[[70_003, 90_000]] = np.nan
    assert first_not_finite(values) == 70_003
    values = np.zeros((3, 4), dtype, order="F")
    values[1, 2] = np.nan
    assert first_not_finite(values) == 7


def test_integers_are_finite() -> None:
    assert first_not_finite(np.arange(3)) is None


@pytest.mark.parametrize(
    ("values", "dtype", "made"),
    [
        ([0.5, 1.5, 2.5, -0.5], "int64", [0, 2, 2, 0]),
        ([-3.0, 300.0, 7.4], "uint8", [0, 255, 7]),
        ([0.4, 0.5, 0.6], "bool", [False, False, True]),
        ([1 + 2**-8 + 2**-40], "bfloat16", [1 + 2**-7]),
        ([1 + 2**-24 + 2**-50], "float32", [1 + 2**-23]),
        ([3], "float16", [3.0]),
    ],
)
def test_the_nearest_number_of_any_dtype(
    values: list[float], dtype: str, made: list[float]
) -> None:
    wanted = NARROW_FLOATS[dtype] if dtype in NARROW_FLOATS else np.dtype(dtype)
    result = nearest(np.array(values), wanted)
    assert result.dtype == wanted
    assert result.astype(np.float64).tolist() == made
