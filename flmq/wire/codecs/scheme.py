"""How one block of numbers is written as bytes: what the codecs differ in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from flmq.common.typing import NDArray
from flmq.wire.codecs.byte_shuffle import shuffle_bytes, unshuffle_bytes

__all__ = ["Lossless", "Scheme"]


class Scheme(ABC):
    """Writes blocks of words as bytes and back. Without state.

    Words are unsigned integers in native byte order, shape (n,), n >= 1. Lossy schemes take
    them for the bits of float32 or float64, as their width says.
    """

    code: ClassVar[int]
    """Stands in the encoded bytes; never used for another scheme."""

    @abstractmethod
    def accepts(self, words: NDArray, base: NDArray | None) -> bool:
        """Whether to use this scheme for a tensor of these words; if not, `Lossless` is used."""

    @abstractmethod
    def packed_bytes(self, count: int, width: int) -> int:
        """How many bytes ``count`` words of ``width`` bytes become."""

    @abstractmethod
    def pack(self, words: NDArray, base: NDArray | None) -> NDArray:
        """Write words as uint8, shape (packed_bytes,), as their difference to ``base`` if any."""

    @abstractmethod
    def unpack(self, packed: NDArray, base: NDArray | None, dtype: np.dtype[Any]) -> NDArray:
        """The words, of the unsigned ``dtype``, from what `pack` made of them.

        Raises:
            MalformedMessage: ``packed`` was made by no `pack`.
        """


class Lossless(Scheme):
    """Differences of the bits taken as integers, in planes. Exact for every number.

    The bits of IEEE numbers are ordered as the numbers are, so neighbouring numbers have a small
    difference. Its sign goes to the lowest bit, for else small negative differences would have
    high bytes of ones. Measured on updates of an MLP: 1.71 against 1.60 without that, 1.66 for
    XOR, and 1.56 for the difference of the numbers.
    """

    code = 0

    def accepts(self, words: NDArray, base: NDArray | None) -> bool:
        """Always."""
        return True

    def packed_bytes(self, count: int, width: int) -> int:
        """As many as there are."""
        return count * width

    def pack(self, words: NDArray, base: NDArray | None) -> NDArray:
        """Planes of the differences, or of the words."""
        return shuffle_bytes(words if base is None else _sign_last(words - base))

    def unpack(self, packed: NDArray, base: NDArray | None, dtype: np.dtype[Any]) -> NDArray:
        """Planes back to words; every value of ``packed`` is possible."""
        words = unshuffle_bytes(packed, dtype)
        if base is not None:
            words = _sign_first(words)
            words += base
        return words


def _sign_last(difference: NDArray) -> NDArray:
    """Two's complement to 0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ..."""
    one = difference.dtype.type(1)
    signed = difference.view(f"i{difference.dtype.itemsize}")
    signs = signed >> signed.dtype.type(8 * signed.dtype.itemsize - 1)
    code: NDArray = difference << one
    code ^= signs.view(code.dtype)
    return code


def _sign_first(code: NDArray) -> NDArray:
    """The inverse of `_sign_last`."""
    one = code.dtype.type(1)
    difference: NDArray = code >> one
    difference ^= np.negative(code & one)
    return difference
