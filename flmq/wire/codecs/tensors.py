"""Split an ``.npy`` byte string into a header and a flat array of words, without copying values.

A word is an unsigned integer as wide as one number of the tensor (or as one of the two parts of a
complex number). Words keep the order and the byte order they have in the bytes.
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
    """The ``.npy`` header as received; empty for bytes that are not ``.npy``."""
    words: NDArray
    """Everything after the header: unsigned, shape (n,); a view."""
    array: NDArray | None
    """The same values in their shape and dtype; a view. None for bytes that are not ``.npy``."""

    @property
    def fortran(self) -> bool:
        """Whether the first index runs fastest."""
        return self.array is not None and _is_fortran(self.array)

    @property
    def floating(self) -> bool:
        """Whether the numbers are float32 or float64, in either byte order."""
        if self.array is None:
            return False
        return self.array.dtype.kind == "f" and self.array.dtype.itemsize in (4, 8)

    def has_form_of(self, other: Tensor) -> bool:
        """Return whether shape and dtype, with its byte order, are the same."""
        ours, theirs = self.array, other.array
        if ours is None or theirs is None:
            return False
        # The bits of one float8 are none of another, though numpy's `str` of both is "<V1".
        return ours.shape == theirs.shape and ours.dtype == theirs.dtype

    def words_in_order(self, fortran: bool) -> NDArray:
        """Return the words in that memory order; copied if the tensor's order is another."""
        if self.array is None or self.fortran == fortran:
            return self.words
        return self.array.ravel(order="F" if fortran else "C").view(self.words.dtype)


def open_tensor(tensor: Buffer) -> Tensor:
    """Split a tensor's bytes. Bytes that are not ``.npy`` become words of one byte."""
    try:
        array = bytes_to_ndarray(tensor, copy=False)
    except MalformedMessage:
        return Tensor(b"", np.frombuffer(tensor, np.uint8) if tensor else _NOTHING, None)
    flat = (array.T if _is_fortran(array) else array).reshape(-1)
    header = bytes(tensor[: len(tensor) - array.nbytes])
    return Tensor(header, flat.view(_words_of(array.dtype)), array)


def word_dtype(width: int, big_endian: bool) -> np.dtype[Any]:
    """Return the dtype of unsigned words of ``width`` bytes (1, 2, 4 or 8)."""
    return np.dtype(f"{'>' if big_endian else '<'}u{width}")


def _words_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the words that make up numbers of ``dtype``."""
    number = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    # Long doubles are 12 or 16 bytes, depending on the machine.
    width = number if number in (1, 2, 4, 8) else 8 if number % 8 == 0 else 4
    return word_dtype(width, dtype.str[0] == _BIG)


def _is_fortran(array: NDArray) -> bool:
    return array.flags.f_contiguous and not array.flags.c_contiguous


_NOTHING = np.empty(0, np.uint8)
