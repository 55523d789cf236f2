"""How one block of numbers is written as bytes: the part in which the codecs differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from flmq.common.typing import NDArray
from flmq.wire.codecs.byte_shuffle import shuffle_bytes, unshuffle_bytes

__all__ = ["Lossless", "Scheme"]


class Scheme(ABC):
    """Write blocks of words as bytes, and read them back. Stateless.

    Words are unsigned integers in native byte order, shape (n,), n >= 1. Lossy schemes interpret
    them as the bits of float32 or float64, depending on their width.
    """

    code: ClassVar[int]
    """Identifies the scheme in the encoded bytes; never reused for another."""

    @abstractmethod
    def accepts(self, words: NDArray, base: NDArray | None) -> bool:
        """Return whether to use this scheme for a tensor of these words, or else `Lossless`."""

    @abstractmethod
    def packed_bytes(self, count: int, width: int) -> int:
        """Return into how many bytes ``count`` words of ``width`` bytes are packed."""

    @abstractmethod
    def pack(self, words: NDArray, base: NDArray | None) -> NDArray:
        """Pack words as uint8, shape (packed_bytes,), as differences from ``base`` if given."""

    @abstractmethod
    def unpack(self, packed: NDArray, base: NDArray | None, dtype: np.dtype[Any]) -> NDArray:
        """Return the words, of the unsigned ``dtype``, from what `pack` returned.

        Raises:
            MalformedMessage: ``packed`` cannot come from `pack`.
        """


class Lossless(Scheme):
    """Differences of the bits taken as integers, in byte planes. Exact for every number.

    The bits of IEEE numbers are ordered as the numbers are, so neighbouring numbers have a small
    difference. Its sign moves to the lowest bit, as small negative differences would otherwise have
    high bytes of ones. Measured on updates of an MLP: 1.71 against 1.60 without that, 1.66 for XOR,
    and 1.56 for the difference of the numbers.
    """

    code = 0

    def accepts(self, words: NDArray, base: NDArray | None) -> bool:
        """Return True: it accepts every tensor."""
        return True

    def packed_bytes(self, count: int, width: int) -> int:
        """Return the unpacked size: packing does not change it."""
        return count * width

    def pack(self, words: NDArray, base: NDArray | None) -> NDArray:
        """Return the byte planes of the differences, or of the words."""
        return shuffle_bytes(words if base is None else _sign_last(words - base))

    def unpack(self, packed: NDArray, base: NDArray | None, dtype: np.dtype[Any]) -> NDArray:
        """Return the words from their planes; every value of ``packed`` is valid."""
        words = unshuffle_bytes(packed, dtype)
        if base is not None:
            words = _sign_first(words)
            words += base
        return words


def _sign_last(difference: NDArray) -> NDArray:
    """Map two's complement 0, -1, 1, -2, 2 ... to 0, 1, 2, 3, 4 ..."""
    one = difference.dtype.type(1)
    signed = difference.view(f"i{difference.dtype.itemsize}")
    signs = signed >> signed.dtype.type(8 * signed.dtype.itemsize - 1)
    code: NDArray = difference << one
    code ^= signs.view(code.dtype)
    return code


def _sign_first(code: NDArray) -> NDArray:
    """Invert `_sign_last`."""
    one = code.dtype.type(1)
    difference: NDArray = code >> one
    difference ^= np.negative(code & one)
    return difference
