"""What a client makes of a trained model for the sake of privacy: clipped, and with noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flmq.common.clipping import clip_factor, clipped, moved, update_norm, updates
from flmq.common.dtypes import is_float
from flmq.common.noise import add_gaussian, generator
from flmq.common.parameter import ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.typing import FitIns, FitRes, NDArrays
from flmq.wire import refer

__all__ = ["private_reply", "private_update"]


def private_update(
    trained: NDArrays,
    model: NDArrays,
    clipping_norm: float,
    stddev: float = 0.0,
    secret: bytes = b"",
) -> tuple[NDArrays, bool]:
    """Return ``model`` plus the clipped and noised update, and whether it was clipped.

    Tensors of integers and booleans are those of ``model``. The noise is a function of ``secret``
    and of both models: a task that is done again has it again.

    Raises:
        AggregationError: the models do not fit each other, or are not finite.
    """
    factor = clip_factor(update_norm(trained, model), clipping_norm)
    context = _digest(trained), _digest(model), clipping_norm, stddev
    update, made = updates(trained, model), []
    for index, (new, old) in enumerate(zip(trained, model, strict=True)):
        if not is_float(old.dtype):
            made.append(old.copy())
            continue
        by = next(update)
        if factor == 1.0 and stddev == 0.0:
            made.append(new)
            continue
        by = np.array(clipped(by, factor), order="C")
        add_gaussian(by, stddev, generator(secret, index, *context))
        made.append(moved(old, by))
    return made, factor < 1


def private_reply(
    ins: FitIns, res: FitRes, clipping_norm: float, stddev: float = 0.0, secret: bytes = b""
) -> tuple[FitRes, bool]:
    """Return ``res`` with what `private_update` makes of its parameters, and whether it clipped."""
    model, trained = (parameters_to_ndarrays(each.parameters, copy=False) for each in (ins, res))
    made, was_clipped = private_update(trained, model, clipping_norm, stddev, secret)
    return replace(res, parameters=ndarrays_to_parameters(made, res.parameters.names)), was_clipped


def _digest(arrays: NDArrays) -> str:
    return refer(ndarrays_to_parameters(arrays)).digest
