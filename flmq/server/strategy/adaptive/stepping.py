"""One step of a server-side optimizer, block by block: the same for all of them but the formula."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from flmq.common.errors import InconsistentTensors, NonFiniteValues
from flmq.common.parameter import TensorSpec, bytes_to_ndarray, ndarray_to_bytes
from flmq.common.typing import NDArray, NDArrays, Parameters

__all__ = ["Rule", "stepped"]

_BLOCK = 1 << 14
"""Numbers at a time: with the intermediate results of a formula they fit the cache."""

Rule = Callable[..., NDArray]
"""``(x, delta, *moments) -> x``: numbers of the model, of ``mean - x`` and of each moment.

It assigns to moments in place, ``m[:] = ...``, and returns the new numbers of the model.
"""


def stepped(
    parameters: Parameters,
    means: Iterable[NDArray],
    moments: Sequence[NDArrays],
    rule: Rule,
    initial: Sequence[float] = (),
) -> tuple[Parameters, list[NDArrays]]:
    """Return the model after one step, and its moments.

    ``moments`` are not changed, so that a step that fails leaves nothing half done; an empty list
    stands for numbers all ``initial`` (by default 0). Tensors of integers and booleans become their
    mean, without a step and without moments: an average of counters is one, a step in its direction
    is not. Moments are float64 for float64 tensors and else float32, in which the formula is
    computed too; only the new model is rounded to the tensor's own dtype.

    Raises:
        InconsistentTensors: the model, the means and the moments do not have the same shapes.
        NonFiniteValues: numbers became NaN or infinity.
    """
    tensors: list[bytes] = []
    made: list[NDArrays] = [[] for _ in moments]
    for index, (x, mean) in enumerate(_pairs(parameters, means)):
        dtype = _moment_dtype(x)
        if dtype is None:
            tensors.append(ndarray_to_bytes(mean))
            for each in made:
                each.append(np.zeros(0, np.float32))
            continue
        start = initial or [0.0] * len(moments)
        own = [
            np.array(before[index]) if before else np.full(x.shape, value, dtype)
            for before, value in zip(moments, start, strict=True)
        ]
        new = np.empty(x.shape, x.dtype)
        _step(index, x, mean, own, rule, new)
        tensors.append(ndarray_to_bytes(new))
        for each, moment in zip(made, own, strict=True):
            each.append(moment)
    return Parameters(tensors, parameters.tensor_type), made


def _step(
    index: int, x: NDArray, mean: NDArray, moments: NDArrays, rule: Rule, new: NDArray
) -> None:
    """Write one tensor's step to ``new`` and ``moments``."""
    if any(moment.shape != x.shape for moment in moments):
        raise InconsistentTensors(
            f"tensor {index} of the model has shape {x.shape}, and what the strategy remembers of "
            f"it {[moment.shape for moment in moments]}: use a new strategy for a new model"
        )
    dtype = moments[0].dtype
    flat = [np.ravel(each) for each in (x, mean)]
    targets = [each.reshape(-1) for each in (new, *moments)]
    for start in range(0, x.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        old, aim = (each[block].astype(dtype, copy=False) for each in flat)
        # What overflows is reported below, with the tensor.
        with np.errstate(all="ignore"):
            targets[0][block] = rule(old, aim - old, *(each[block] for each in targets[1:]))
        if not all(np.isfinite(each[block]).all() for each in targets):
            raise NonFiniteValues(
                f"tensor {index} became NaN or infinity in the server's step: lower its learning "
                "rate, or look at what clients send"
            )


def _pairs(parameters: Parameters, means: Iterable[NDArray]) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield each tensor of the model with its mean."""
    count = 0
    for count, mean in enumerate(means, 1):
        if count > len(parameters.tensors):
            break
        x = bytes_to_ndarray(parameters.tensors[count - 1], copy=False)
        if TensorSpec.of(x) != TensorSpec.of(mean):
            raise InconsistentTensors(
                f"tensor {count - 1} of the model is {TensorSpec.of(x)}, that of its clients' mean "
                f"{TensorSpec.of(mean)}: a step goes from one to the other"
            )
        yield x, mean
    if count != len(parameters.tensors):
        raise InconsistentTensors(
            f"the model has {len(parameters.tensors)} tensors, its clients' mean another number: "
            "a step goes from one to the other. When calling aggregate_fit by hand, give "
            "initial_parameters"
        )


def _moment_dtype(x: NDArray) -> np.dtype[Any] | None:
    """Return the dtype to compute in; None for numbers that are averaged only."""
    if x.dtype.kind in "biu":
        return None
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
