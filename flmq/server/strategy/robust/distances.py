"""Squared distances between models, each the sum of squared differences in float64.

Not ``|x|^2 + |y|^2 - 2 xy``: where models are large against what separates them, its terms cancel,
and the reply that is chosen is the wrong one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flmq.common.typing import NDArray
from flmq.server.strategy.blockwise import Models

__all__ = ["squared_distances"]

_COLUMNS = 1 << 13
"""Numbers of each model at a time, so that all models' fit the cache: 64 KiB each in float64."""


def squared_distances(models: Models) -> npt.NDArray[np.float64]:
    """Return the squared distance between any two models, shape (models, models).

    Each pair is computed once. A distance that float64 cannot hold is infinite.

    Raises:
        InconsistentTensors: models differ in their tensors, or these have no distance.
    """
    distances = np.zeros((len(models), len(models)))
    with np.errstate(over="ignore", invalid="ignore"):
        for index in range(len(models.specs)):
            for _, values in models.blocks(index):
                for start in range(0, values.shape[1], _COLUMNS):
                    _add(distances, values[:, start : start + _COLUMNS])
    return distances + distances.T


def _add(distances: npt.NDArray[np.float64], values: NDArray) -> None:
    """Add a stretch of all models to the upper triangle."""
    difference = np.empty(values.shape[1])
    wide = values.dtype.kind in "iu" and values.itemsize == 8
    rows = list(values if wide else values.astype(np.float64))
    for i, one in enumerate(rows):
        for j in range(i + 1, len(rows)):
            if wide:  # float64 does not hold them; their difference it does, up to rounding once
                np.copyto(difference, _gap(one, rows[j]))
            else:
                np.subtract(one, rows[j], out=difference)
            distances[i, j] += np.dot(difference, difference)


def _gap(one: NDArray, other: NDArray) -> NDArray:
    """Return ``|one - other|`` of integers of 64 bits, exact."""
    gap: NDArray = np.maximum(one, other).view(np.uint64) - np.minimum(one, other).view(np.uint64)
    return gap
