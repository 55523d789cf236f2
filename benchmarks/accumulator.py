"""Speed of the exact accumulator against a naive float64 sum, on one core.

The naive sum is what a plain implementation would do, and about the fastest that numpy can:
``acc += weight * x`` in float64, block by block so that the product stays in the cache. It rounds
at every step, so its bits depend on the order. Run it with::

    python benchmarks/accumulator.py [--megabytes 256] [--repeats 7]

Every figure is the median of the repeats, after one that is not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.aggregation import MeanAccumulator, specs_of

_REPLIES = 4  # different arrays, taken in turn
_NAIVE_BLOCK = 1 << 16


def _replies(dtype: str, megabytes: int) -> list[NDArray[Any]]:
    rng = np.random.default_rng(0)
    size = megabytes * 1_000_000 // np.dtype(dtype).itemsize
    base = (0.05 * rng.standard_normal(size)).astype(dtype)
    return [base] + [
        (base + 0.001 * rng.standard_normal(size)).astype(dtype) for _ in range(_REPLIES - 1)
    ]


def _median_seconds(step: Callable[[int], object], repeats: int) -> float:
    seconds = []
    for repeat in range(repeats + 1):
        begin = time.perf_counter()
        step(repeat)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def _naive(replies: list[NDArray[Any]], repeats: int) -> float:
    total = np.zeros(replies[0].size)
    product = np.empty(_NAIVE_BLOCK)

    def step(repeat: int) -> None:
        values = replies[repeat % _REPLIES]
        for start in range(0, values.size, _NAIVE_BLOCK):
            block = values[start : start + _NAIVE_BLOCK]
            weighted = product[: block.size]
            np.multiply(block, 100.0 + repeat, out=weighted, dtype=np.float64)
            part = total[start : start + _NAIVE_BLOCK]
            np.add(part, weighted, out=part)

    return _median_seconds(step, repeats)


def _row(what: str, seconds: float, size: int, reference: float) -> None:
    print(f"{what:<34}{size / seconds / 1e9:8.2f} GB/s{seconds / reference:8.2f} x naive")


def _measure(dtype: str, megabytes: int, repeats: int) -> None:
    replies = _replies(dtype, megabytes)
    size = replies[0].nbytes
    naive = _naive(replies, repeats)
    _row(f"{dtype}, naive float64 sum", naive, size, naive)
    sums = MeanAccumulator(specs_of(replies[:1]))
    exact = _median_seconds(lambda i: sums.add([replies[i % _REPLIES]], 100 + i), repeats)
    _row(f"{dtype}, exact: add", exact, size, naive)
    _row(f"{dtype}, exact: finish", _median_seconds(lambda _: sums.finish(), repeats), size, naive)
    other = MeanAccumulator(specs_of(replies[:1]))
    other.add([replies[0]], 1)
    merging = _median_seconds(lambda _: sums.merge(other), repeats)
    _row(f"{dtype}, exact: merge", merging, size, naive)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=256, help="size of a reply")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"numpy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"replies of {options.megabytes} MB, medians of {options.repeats}; GB/s of input\n")
    for dtype in ("float32", "float64", "float16"):
        _measure(dtype, options.megabytes, options.repeats)


if __name__ == "__main__":
    main()
