"""Sorting columns: networks for every number of rows, every dtype, -0.0 and NaN in their places."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flmq.common import NDArray
from flmq.server.strategy.robust.sorting import comparators, sorted_rows, strips

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


@pytest.mark.parametrize("rows", range(1, 12))
def test_a_network_sorts_whatever_comes(rows: int) -> None:
    """The 0-1 principle (Knuth, 5.3.4, Theorem Z): one that sorts zeros and ones sorts anything."""
    columns = np.array(list(itertools.product((0, 1), repeat=rows))).T
    for low, high in comparators(rows):
        assert low < high
        columns[[low, high]] = np.sort(columns[[low, high]], axis=0)
    assert (np.diff(columns, axis=0) >= 0).all()


@pytest.mark.parametrize("rows", [1, 2, 10, 31, 32, 33, 70])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_those_of_numpys_sort(rows: int, dtype: str) -> None:
    rng = np.random.default_rng(rows)
    bits = rng.integers(0, 2 if dtype == "?" else 256, (rows, 40 * np.dtype(dtype).itemsize), "u1")
    values: NDArray = bits.view(dtype)
    values = np.nan_to_num(values) if values.dtype.kind == "f" else values
    expected = np.sort(values, axis=0)
    got = sorted_rows(values.copy())
    assert [row.dtype for row in got] == [values.dtype] * rows
    np.testing.assert_array_equal(got, expected)
    middle = sorted_rows(values.copy(), rows // 3, rows // 3 + 1)
    np.testing.assert_array_equal(middle, expected[rows // 3 : rows // 3 + 1])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("rows", [8, 40])
def test_bits_do_not_depend_on_the_order_of_rows(rows: int, dtype: str) -> None:
    odd = [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, np.finfo(dtype).tiny / 4, -1.0]
    values = np.array([odd] * rows, dtype)
    rng = np.random.default_rng(3)
    first = rng.permuted(values, axis=1)
    second = rng.permuted(first, axis=0)
    one, other = (np.array(sorted_rows(each.copy())).tobytes() for each in (first, second))
    assert one == other


def test_strips_cover_all_columns_and_are_views() -> None:
    values = np.zeros((3, 200_000), np.float64)
    for start, strip in strips(values):
        strip += start + np.arange(strip.shape[1])
    np.testing.assert_array_equal(values, [np.arange(200_000)] * 3)
