"""An ``.npy`` byte string as a header and a flat array of words, without copying the values.

A word is an unsigned integer as wide as one number of the tensor (as one of its two parts, when
it is complex). Words stand in the order in which they lie in the bytes, and keep its byte order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flmq.common.errors import MalformedMessage
from flmq.common.parameter import bytes_to_ndarray
from flmq.common.typing import NDArray
from flmq.wire.codecs.base import Buffer

__all__ = ["Tensor", "open_tensor", "word_dtype"]

_BIG = np.dtype(">u2").str[0]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """The parts of one tensor's bytes."""

    header: bytes
    """The ``.npy`` header as it came; empty for bytes that are no ``.npy``."""
    words: NDArray
    """All that follows, shape (n,), unsigned; a view."""
    array: NDArray | None
    """The same values in their shape and dtype; a view. None for bytes that are no ``.npy``."""

    @property
    def fortran(self) -> bool:
        """Whether the first index runs fastest."""
        return self.array is not None and _is_fortran(self.array)

    @property
    def floating(self) -> bool:
        """Whether the numbers are float32 or float64, of whichever byte order."""
        if self.array is None:
            return False
        return self.array.dtype.kind == "f" and self.array.dtype.itemsize in (4, 8)

    def has_form_of(self, other: Tensor) -> bool:
        """Whether shapes and dtypes are the same."""
        ours, theirs = self.array, other.array
        if ours is None or theirs is None:
            return False
        return ours.shape == theirs.shape and ours.dtype.str == theirs.dtype.str

    def words_in_order(self, fortran: bool) -> NDArray:
        """The words as a tensor of that memory order has them; copied if the order is another."""
        if self.array is None or self.fortran == fortran:
            return self.words
        return self.array.ravel(order="F" if fortran else "C").view(self.words.dtype)


def open_tensor(tensor: Buffer) -> Tensor:
    """Find the parts of a tensor's bytes. Bytes that are no ``.npy`` are words of one byte."""
    try:
        array = bytes_to_ndarray(tensor, copy=False)
    except MalformedMessage:
        return Tensor(b"", np.frombuffer(tensor, np.uint8) if tensor else _NOTHING, None)
    flat = (array.T if _is_fortran(array) else array).reshape(-1)
    header = bytes(tensor[: len(tensor) - array.nbytes])
    return Tensor(header, flat.view(_words_of(array.dtype)), array)


def word_dtype(width: int, big_endian: bool) -> np.dtype[Any]:
    """Unsigned words of ``width`` bytes (1, 2, 4 or 8)."""
    return np.dtype(f"{'>' if big_endian else '<'}u{width}")


def _words_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The words that numbers of ``dtype`` are made of."""
    number = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    # Long doubles are 12 or 16 bytes, depending on the machine.
    width = number if number in (1, 2, 4, 8) else 8 if number % 8 == 0 else 4
    return word_dtype(width, dtype.str[0] == _BIG)


def _is_fortran(array: NDArray) -> bool:
    return array.flags.f_contiguous and not array.flags.c_contiguous


_NOTHING = np.empty(0, np.uint8)
