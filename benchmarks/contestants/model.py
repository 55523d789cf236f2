"""The model that goes round: float32 tensors of unequal size, the same in every process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["make_model"]

_COLUMNS = 64
_SHARES = (2, 4, 8, 16)
"""A half, a quarter ... of the numbers are matrices; what is left, a long and a short vector."""


def make_model(num_bytes: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """Return six tensors, ``num_bytes`` // 4 float32 in all: normal(0, 0.05), so no zip helps."""
    rng = np.random.default_rng(seed)
    left = num_bytes // 4
    shapes: list[tuple[int, ...]] = [(left // share // _COLUMNS, _COLUMNS) for share in _SHARES]
    left -= sum(rows * _COLUMNS for rows, _ in shapes)
    shapes += [(left - _COLUMNS,), (_COLUMNS,)]
    tensors = []
    for shape in shapes:
        tensor = rng.standard_normal(shape, dtype=np.float32)
        tensor *= np.float32(0.05)
        # A draw may be -0.0, and the mean of such is +0.0 by rule: not what is compared.
        tensor += np.float32(0)
        tensors.append(tensor)
    return tensors
