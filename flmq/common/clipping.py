"""Clip the update of a whole model by its L2 norm: FlatClip of McMahan et al., 2018, 1710.06963.

An update is ``trained - model``, in float64, over the tensors of floating point. Tensors of
integers and booleans take no part: noise would make nonsense of a counter, and a counter without
noise would tell of the client's data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from flmq.common.dtypes import first_not_finite, is_float, largest, rounded
from flmq.common.errors import InconsistentTensors, NonFiniteValues
from flmq.common.typing import NDArray

__all__ = [
    "KEY_CLIPPING_NORM",
    "KEY_DPFEDAVG_ADAPTIVE",
    "KEY_DPFEDAVG_BIT",
    "KEY_DPFEDAVG_NORM",
    "KEY_DPFEDAVG_STDDEV",
    "KEY_NORM_BIT",
    "clip_factor",
    "clipped",
    "moved",
    "sum_of_squares",
    "update_norm",
    "updates",
]

KEY_CLIPPING_NORM = "clipping_norm"
"""In the config of a client that is to clip: the norm, a float above 0. Flower's name."""
KEY_NORM_BIT = "norm_bit"
"""In the metrics of a client that clipped: 1 if the norm of its update was above, else 0."""

KEY_DPFEDAVG_NORM = "dpfedavg_clip_norm"
KEY_DPFEDAVG_STDDEV = "dpfedavg_noise_stddev"
KEY_DPFEDAVG_ADAPTIVE = "dpfedavg_adaptive_clip_enabled"
KEY_DPFEDAVG_BIT = "dpfedavg_norm_bit"
"""The same in Flower's DP-FedAvg; its bit is true for an update that was *not* clipped."""

_SMALL = 1e-280
"""Below this a sum of squares may have lost numbers to underflow."""


def updates(trained: Sequence[NDArray], model: Sequence[NDArray]) -> Iterator[NDArray]:
    """Yield the update of each tensor of floating point as a new float64 array.

    Raises:
        InconsistentTensors: the counts or shapes of tensors differ.
    """
    if len(trained) != len(model):
        raise InconsistentTensors(f"{len(trained)} tensors where the model has {len(model)}")
    for index, (new, old) in enumerate(zip(trained, model, strict=True)):
        if new.shape != old.shape:
            raise InconsistentTensors(
                f"tensor {index} has shape {new.shape} where the model has {old.shape}"
            )
        if is_float(old.dtype):
            with np.errstate(over="ignore", invalid="ignore"):
                yield np.asarray(new.astype(np.float64) - old.astype(np.float64))


def sum_of_squares(tensors: Iterable[NDArray]) -> float:
    """Return the sum of squares of all numbers of float64 tensors, which it overwrites."""
    total = 0.0
    for tensor in tensors:
        flat = np.ravel(tensor, order="K")
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            total += float(np.add.reduce(np.square(flat, out=flat)))
    return total


def update_norm(trained: Sequence[NDArray], model: Sequence[NDArray]) -> float:
    """Return the L2 norm of the update, over the whole model.

    No finite numbers make it overflow on the way, nor vanish; at worst it is the infinity that it
    rounds to.

    Raises:
        InconsistentTensors: the counts or shapes of tensors differ.
        NonFiniteValues: there is NaN, or infinity, in what was trained.
    """
    total = sum_of_squares(updates(trained, model))
    if _SMALL < total < math.inf:
        return math.sqrt(total)
    if not all(first_not_finite(each) is None for each in trained):
        raise NonFiniteValues("there is NaN or infinity in it")
    largest = max((_largest(each) for each in updates(trained, model)), default=0.0)
    if largest == 0.0:
        return 0.0
    scaled = sum_of_squares(_finite(each) / largest for each in updates(trained, model))
    return largest * math.sqrt(scaled)


def clip_factor(norm: float, clipping_norm: float) -> float:
    """Return ``min(1, clipping_norm / norm)``; 1 for an update of norm zero."""
    return 1.0 if norm <= clipping_norm else clipping_norm / norm


def clipped(update: NDArray, factor: float) -> NDArray:
    """Return ``factor * update``, finite: ``update`` is from `updates` and may be overwritten."""
    if factor != 1.0:
        update = _finite(update)
        update *= factor
    return update


def moved(model: NDArray, by: NDArray) -> NDArray:
    """Return ``model + by``, computed in float64 and rounded once to the model's dtype.

    What the dtype cannot hold becomes the largest number that it can.
    """
    most = largest(model.dtype)
    with np.errstate(over="ignore", under="ignore"):
        there = model.astype(np.float64) + by
        return np.asarray(rounded(np.asarray(np.clip(there, -most, most)), model.dtype))


def _finite(update: NDArray) -> NDArray:
    """Return the difference of finite numbers: one that overflowed is the largest there is."""
    return np.nan_to_num(update, copy=False)


def _largest(update: NDArray) -> float:
    return float(np.abs(_finite(update)).max(initial=0.0))
