"""The exact weighted mean of lists of tensors: the same bits for every order and every tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.aggregation.rounding import FloatFormat, round_to_float, round_to_int
from flmq.aggregation.weights import checked_weight
from flmq.common.errors import InconsistentTensors, NonFiniteValues, ZeroWeight

__all__ = ["weighted_mean"]

_SCALE = 1074  # every float64 is an integer times 2**-1074


def weighted_mean(results: Iterable[tuple[Sequence[NDArray[Any]], int]]) -> list[NDArray[Any]]:
    """``sum(weight * tensors) / sum(weight)``, exact, rounded once to each tensor's own dtype.

    Raises ``ZeroWeight`` when there is nothing to average, ``InconsistentTensors`` when counts,
    shapes or dtypes differ, ``NonFiniteValues`` for NaN and infinity, ``AggregationError`` for a
    weight that is negative or not an integer.
    """
    sums: list[NDArray[Any]] | None = None
    like: list[NDArray[Any]] = []
    total = 0
    for tensors, weight in results:
        count = checked_weight(weight)
        if sums is None:
            like = [np.asarray(t) for t in tensors]
            sums = [np.zeros(t.size, dtype=object) for t in like]
        _check(tensors, like)
        sums = [s + _integers(t) * count for s, t in zip(sums, tensors, strict=True)]
        total += count
    if sums is None or not total:
        raise ZeroWeight("nothing to average: there are no results, or every weight is zero")
    return [_mean(s, total, t.dtype).reshape(t.shape) for s, t in zip(sums, like, strict=True)]


def _check(tensors: Sequence[NDArray[Any]], like: Sequence[NDArray[Any]]) -> None:
    if len(tensors) != len(like):
        raise InconsistentTensors(f"{len(tensors)} tensors where {len(like)} are expected")
    for i, (got, want) in enumerate(zip(tensors, like, strict=True)):
        if got.shape != want.shape or got.dtype != want.dtype:
            raise InconsistentTensors(
                f"tensor {i} is {got.dtype}{list(got.shape)} where "
                f"{want.dtype}{list(want.shape)} is expected"
            )
        if got.dtype.kind not in "fiub" or got.dtype.itemsize > 8:
            raise InconsistentTensors(f"tensor {i} has dtype {got.dtype}, which has no mean here")
        if got.dtype.kind == "f" and not np.isfinite(got).all():
            raise NonFiniteValues(f"tensor {i} has NaN or infinity")


def _integers(tensor: NDArray[Any]) -> NDArray[Any]:
    """The tensor's values, flat, as Python integers; floats in units of 2**-1074."""
    flat = [_integer(v) for v in tensor.ravel().tolist()]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out


def _integer(value: float | int) -> int:
    if isinstance(value, float):
        numerator, denominator = value.as_integer_ratio()
        return numerator << (_SCALE + 1 - denominator.bit_length())
    return int(value)


def _mean(sums: NDArray[Any], total: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    flat = sums.tolist()
    if dtype.kind == "f":
        form = FloatFormat.of(dtype)
        means: list[Any] = [round_to_float(s, total << _SCALE, form) for s in flat]
    else:
        means = [round_to_int(s, total) for s in flat]
    return np.array(means, dtype=dtype)
