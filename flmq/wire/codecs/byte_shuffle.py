"""Group bytes of the same significance, which makes numbers compressible.

The high bytes of a tensor's numbers are similar, the low ones are noise. When they are grouped in
planes, zstd compresses the former and skips the latter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flmq.common.typing import NDArray

__all__ = ["shuffle_bytes", "unshuffle_bytes"]


def shuffle_bytes(words: NDArray) -> NDArray:
    """Return the bytes of unsigned ``words`` (n,) as uint8 (n * width,), the lowest plane first."""
    width = words.dtype.itemsize
    planes = np.empty((width, len(words)), np.uint8)
    # A shift and a narrowing copy per plane: twice as fast as transposing the bytes.
    for place in range(width):
        planes[place] = words >> words.dtype.type(8 * place)
    return planes.reshape(-1)


def unshuffle_bytes(planes: NDArray, dtype: np.dtype[Any]) -> NDArray:
    """Return the words, of the unsigned native ``dtype``, that `shuffle_bytes` made planes of."""
    width = dtype.itemsize
    rows = planes.reshape(width, -1)
    words: NDArray = rows[width - 1].astype(dtype)
    for place in range(width - 2, -1, -1):
        np.left_shift(words, dtype.type(8), out=words)
        np.bitwise_or(words, rows[place], out=words)
    return words
