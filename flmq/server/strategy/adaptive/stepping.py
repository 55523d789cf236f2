"""One step of a server-side optimizer, block by block: the same for all of them but the formula."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from flmq.common.dtypes import is_float
from flmq.common.errors import InconsistentTensors
from flmq.common.logger import get_logger
from flmq.common.parameter import TensorSpec, bytes_to_ndarray, ndarray_to_bytes
from flmq.common.typing import NDArray, NDArrays, Parameters

__all__ = ["Rule", "stepped"]

logger = get_logger(__name__)

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
    initial: Sequence[float],
) -> Parameters:
    """Return the model after one step, and bring the ``moments`` there in place.

    Each of ``moments`` has an array for each tensor; an empty one is filled first, with its number
    of ``initial``. They are float64 for tensors of float64 and else float32. The formula is
    computed in that too, and only the new model is rounded to the tensor's own dtype. Tensors of
    integers and booleans become their mean, without a step, and have empty moments: the average of
    counters is a counter, a step in its direction is none.

    A number whose step overflows stays as it was, with its moments, and a warning counts them: what
    one client can bring about by numbers near the largest does not stay in the moments.

    Raises:
        InconsistentTensors: the model, the means and the moments do not have the same shapes.
    """
    model = [bytes_to_ndarray(tensor, copy=False) for tensor in parameters.tensors]
    for moment, value in zip(moments, initial, strict=True):
        if not moment:
            moment += [_moment(x, value) for x in model]
        if [each.shape for each in moment] != [_moment_shape(x) for x in model]:
            raise InconsistentTensors(
                "the strategy remembers moments of tensors of other shapes than the model's: use a "
                "new strategy for a new model"
            )
    tensors: list[bytes] = []
    for index, (x, mean) in enumerate(_pairs(model, means)):
        if _is_averaged(x):
            tensors.append(ndarray_to_bytes(mean))
            continue
        new = np.empty(x.shape, x.dtype)
        stayed = _step(x, mean, [moment[index] for moment in moments], rule, new)
        tensors.append(ndarray_to_bytes(new))
        if stayed:
            logger.warning(
                "tensor %d: %d of %d numbers overflow in the server's step, and stay: lower its "
                "learning rate, or look at what clients send",
                index,
                stayed,
                x.size,
            )
    return Parameters(tensors, parameters.tensor_type)


def _step(x: NDArray, mean: NDArray, moments: NDArrays, rule: Rule, new: NDArray) -> int:
    """Write one tensor's step to ``new`` and to ``moments``; return how many numbers stayed."""
    dtype, stayed = moments[0].dtype, 0
    x, mean = np.ravel(x), np.ravel(mean)
    targets = [each.reshape(-1) for each in (new, *moments)]
    for start in range(0, x.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        old, aim = (each[block].astype(dtype, copy=False) for each in (x, mean))
        made, *own = stepping = [each[block] for each in targets]
        before = [x[block], *(each.copy() for each in own)]
        with np.errstate(all="ignore"):  # what overflows stays
            made[:] = rule(old, aim - old, *own)
        finite = [np.isfinite(each) for each in stepping]
        if not all(each.all() for each in finite):
            stay = ~np.logical_and.reduce(finite)
            stayed += int(np.count_nonzero(stay))
            for each, kept in zip(stepping, before, strict=True):
                np.copyto(each, kept, where=stay)
    return stayed


def _pairs(model: NDArrays, means: Iterable[NDArray]) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield each tensor of the model with its mean."""
    left = list(reversed(model))
    for index, mean in enumerate(means):
        x = left.pop() if left else None
        if x is None or x.shape != mean.shape or x.dtype != mean.dtype:
            own = "missing" if x is None else TensorSpec.of(x)
            raise InconsistentTensors(
                f"tensor {index} of the clients' mean is {TensorSpec.of(mean)}, the model's {own}: "
                "a step goes from one to the other. When calling aggregate_fit by hand, give "
                "initial_parameters"
            )
        yield x, mean
    if left:
        raise InconsistentTensors(
            f"the clients' mean lacks the last {len(left)} of the model's {len(model)} tensors"
        )


def _is_averaged(x: NDArray) -> bool:
    return not is_float(x.dtype)


def _moment_shape(x: NDArray) -> tuple[int, ...]:
    return (0,) if _is_averaged(x) else x.shape


def _moment(x: NDArray, value: float) -> NDArray:
    """Return the first moment of a tensor, all ``value``."""
    dtype: Any = np.float64 if x.dtype.newbyteorder("=") == np.float64 else np.float32
    return np.full(_moment_shape(x), value, dtype)
