"""Clients' differences ``w - w_k`` from the model, block by block: their norms, and their sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flmq.aggregation import weighted_mean
from flmq.common.dtypes import is_float, rounded
from flmq.common.errors import InconsistentTensors
from flmq.common.parameter import bytes_to_ndarray, tensor_spec
from flmq.common.typing import NDArray, Parameters
from flmq.server.strategy.blockwise import Replies
from flmq.server.strategy.steps import checked

__all__ = ["against", "squared_norms"]

_BLOCK_BYTES = 1 << 20
"""Of all replies together: with the intermediate results they fit the cache."""


def squared_norms(parameters: Parameters, replies: Replies) -> list[float]:
    """Return ``||w - w_k||^2`` of each reply, in float64; tensors of integers do not count.

    Raises:
        InconsistentTensors: replies have other tensors than the model.
    """
    if tuple(map(tensor_spec, parameters.tensors)) != replies.specs:
        raise InconsistentTensors(
            "replies have other tensors than the model that clients trained from. When calling "
            "aggregate_fit by hand, give initial_parameters"
        )
    norms = [0.0] * len(replies)
    with np.errstate(over="ignore"):
        for tensor in range(len(parameters.tensors)):
            if _is_averaged(replies, tensor):
                continue
            for _, old, values in _blocks(parameters, replies, tensor):
                for client, row in enumerate(values):
                    norms[client] += float(np.square(old - row).sum())
    return norms


def against(
    parameters: Parameters, replies: Replies, weights: Sequence[float]
) -> Iterator[NDArray]:
    """Yield ``w - sum of weights_k (w - w_k)``, tensor by tensor; of integers the plain mean.

    Raises:
        NonFiniteValues: numbers became NaN or infinity.
    """
    for tensor, spec in enumerate(replies.specs):
        made = np.empty(spec.size, spec.dtype)
        if _is_averaged(replies, tensor):
            for start, values in replies.blocks(tensor, _BLOCK_BYTES):
                stop = start + values.shape[1]
                made[start:stop] = weighted_mean(([row], 1) for row in values)[0]
            yield made.reshape(spec.shape)
            continue
        with np.errstate(all="ignore"):  # what overflows is reported below
            for start, old, values in _blocks(parameters, replies, tensor):
                new = old.copy()
                for weight, row in zip(weights, values, strict=True):
                    new -= weight * (old - row)
                made[start : start + new.size] = rounded(new, spec.dtype)
        yield checked(tensor, made.reshape(spec.shape))


def _is_averaged(replies: Replies, tensor: int) -> bool:
    return not is_float(replies.specs[tensor].dtype)


def _blocks(
    parameters: Parameters, replies: Replies, tensor: int
) -> Iterator[tuple[int, NDArray, NDArray]]:
    """Yield where a block begins, the model's numbers in float64, and those of all replies."""
    whole = np.ravel(bytes_to_ndarray(parameters.tensors[tensor], copy=False))
    for start, values in replies.blocks(tensor, _BLOCK_BYTES):
        yield start, whole[start : start + values.shape[1]].astype(np.float64), values
