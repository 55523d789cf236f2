"""Speed of the exact accumulator against a naive float64 sum, on one core.

The naive sum is what a plain implementation would do, and about the fastest that numpy can:
``acc += weight * x`` in float64, block by block so that the product stays in the cache. It rounds
at every step, so its bits depend on the order. Run it with::

    python benchmarks/accumulator.py [--megabytes 256] [--repeats 7]

Every figure is a median of the repeats, after one that is not counted. A repeat measures all rows
one after the other, and times are CPU times of this process, so that other work on the machine
disturbs the ratios little.
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
_NAIVE_BLOCK = 1 << 15

Step = Callable[[int], object]


def _replies(dtype: str, megabytes: int) -> list[NDArray[Any]]:
    """Replies as from a model: weights of normal distribution, each reply a little off."""
    rng = np.random.default_rng(0)
    size = megabytes * 1_000_000 // np.dtype(dtype).itemsize
    base = 0.05 * rng.standard_normal(size, dtype=np.float32)
    return [
        (base + 0.001 * rng.standard_normal(size, dtype=np.float64)).astype(dtype)
        for _ in range(_REPLIES)
    ]


def _naive(replies: list[NDArray[Any]]) -> Step:
    total = np.zeros(replies[0].size)
    product = np.empty(_NAIVE_BLOCK)

    def add(repeat: int) -> None:
        values = replies[repeat % _REPLIES]
        for start in range(0, values.size, _NAIVE_BLOCK):
            block = values[start : start + _NAIVE_BLOCK]
            weighted = product[: block.size]
            np.multiply(block, 100.0 + repeat, out=weighted, dtype=np.float64)
            part = total[start : start + _NAIVE_BLOCK]
            np.add(part, weighted, out=part)

    return add


def _steps(replies: list[NDArray[Any]]) -> dict[str, Step]:
    """What is measured, by name. Weights are numbers of examples: some hundreds."""
    exact, other = (MeanAccumulator(specs_of(replies[:1])) for _ in range(2))
    for number, reply in enumerate(replies):
        exact.add([reply], 100 + number)
    other.add([replies[0]], 1)
    return {
        "naive float64 sum": _naive(replies),
        "exact: add": lambda i: exact.add([replies[i % _REPLIES]], 101 + i),
        "exact: merge": lambda _: exact.merge(other),
        "exact: finish": lambda _: exact.finish(),
    }


def _medians(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            begin = time.process_time()
            step(repeat)
            seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def _report(dtype: str, megabytes: int, repeats: int) -> None:
    replies = _replies(dtype, megabytes)
    medians = _medians(_steps(replies), repeats)
    naive = medians["naive float64 sum"]
    for name, seconds in medians.items():
        speed = replies[0].nbytes / seconds / 1e9
        each = seconds / replies[0].size * 1e9
        print(
            f"{dtype:<9}{name:<20}{speed:7.2f} GB/s{each:7.2f} ns a number"
            f"{seconds / naive:7.2f} x naive"
        )
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of the exact accumulator.")
    parser.add_argument("--megabytes", type=int, default=256, help="size of a reply")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"numpy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    print(f"replies of {options.megabytes} MB, medians of {options.repeats}; GB/s of input\n")
    for dtype in ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn"):
        _report(dtype, options.megabytes, options.repeats)


if __name__ == "__main__":
    main()
