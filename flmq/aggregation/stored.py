r"""The exact state of an accumulator as bytes: for a checkpoint, or to send to another region.

The layout, little-endian throughout; ``integer`` is a length u16 and that many bytes, signed::

    magic "flmqsum\0", version u16, elements in a block u32
    tensors u32, then for each: length u8 of its dtype as in an .npy header, and that;
        number of dimensions u8, and each as u64
    total weight integer
    for each block of each tensor, in order:
        limbs u16, then for each: exponent i32, load u64, elements as int64
        spilled elements u32, then for each: position u32, multiple of the dtype's unit integer
        elements with negative zeros u32, then for each: position u32, their weight integer
    CRC-32 of everything before, u32

Equal sums may be stored as different bytes, since the representation depends on the order of the
additions; the result of ``finish`` does not.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flmq.aggregation.limbs import FULL, BlockSum, Limb, empty_sums
from flmq.aggregation.pieces import BLOCK, ONE_MINUS_ZERO
from flmq.aggregation.tensors import TensorSpec, averaged
from flmq.common.dtypes import NARROW_FLOATS, descr_of
from flmq.common.errors import InconsistentTensors, StoredDataError

__all__ = ["dump_sums", "load_sums"]

_MAGIC = b"flmqsum\0"
_VERSION = 2
_EXPONENTS = range(-1200, 1 << 14)  # of limbs: wider than any numbers and weights need
_MOST_LIMBS = 256
_LEAST_BLOCK = 10  # bytes of an empty block
_DESCR = re.compile(rf"[<>|=]?[biuf]\d{{1,2}}|{'|'.join(NARROW_FLOATS)}".encode())
_HEADER = struct.Struct("<8sHII")
_LIMB = struct.Struct("<iQ")


def dump_sums(
    specs: Sequence[TensorSpec], weight: int, blocks: Sequence[Sequence[BlockSum]]
) -> Iterator[bytes | memoryview]:
    """Yield the stored form in pieces of at most 256 KiB."""
    check = 0
    for piece in _pieces(specs, weight, blocks):
        check = zlib.crc32(piece, check)
        yield piece
    yield struct.pack("<I", check)


def _pieces(
    specs: Sequence[TensorSpec], weight: int, blocks: Sequence[Sequence[BlockSum]]
) -> Iterator[bytes | memoryview]:
    yield _HEADER.pack(_MAGIC, _VERSION, BLOCK, len(specs))
    for spec in specs:
        name = descr_of(spec.dtype).encode("ascii")
        count = len(spec.shape)
        yield struct.pack(f"<B{len(name)}sB{count}Q", len(name), name, count, *spec.shape)
    yield _integer(weight)
    for tensor_blocks in blocks:
        for block in tensor_blocks:
            yield from _block_pieces(block)


def _block_pieces(block: BlockSum) -> Iterator[bytes | memoryview]:
    yield struct.pack("<H", len(block.limbs))
    for exponent, limb in block.limbs.items():
        yield _LIMB.pack(exponent, limb.load)
        yield limb.at().astype("<i8", copy=False).data.cast("B")
    yield struct.pack("<I", len(block.spill))
    for position, amount in block.spill.items():
        yield struct.pack("<I", position) + _integer(amount)
    yield from _negative_zeros(block)


def _negative_zeros(block: BlockSum) -> Iterator[bytes]:
    weights = np.zeros(0) if block.negative_zeros is None else block.negative_zeros.weights
    positions = np.flatnonzero(weights)
    yield struct.pack("<I", positions.size)
    for position in positions.tolist():
        yield struct.pack("<I", position) + _integer(int(weights[position]))


def _integer(value: int) -> bytes:
    length = value.bit_length() // 8 + 1
    return struct.pack("<H", length) + value.to_bytes(length, "little", signed=True)


def load_sums(
    data: bytes | bytearray | memoryview,
) -> tuple[tuple[TensorSpec, ...], int, list[list[BlockSum]]]:
    """Return specs, total weight and sums read from their stored form; ``data`` is copied.

    Never allocates more than the data can fill, whatever its header says.

    Raises:
        StoredDataError: the bytes are damaged, truncated, of another version, or no accumulator.
    """
    reader = _Reader(memoryview(data).cast("B"))
    reader.check()
    magic, version, block_size, count = reader.fields(_HEADER)
    if magic != _MAGIC:
        raise _damaged("it does not begin as a stored accumulator does")
    if version != _VERSION or block_size != BLOCK:
        raise StoredDataError(
            f"stored accumulator of version {version} with blocks of {block_size}: this flmq reads "
            f"version {_VERSION} with blocks of {BLOCK}; use the flmq that wrote it"
        )
    specs = tuple(_read_spec(reader) for _ in range(count))
    weight = reader.integer()
    if weight < 0:
        raise _damaged("its weight is negative")
    if sum(-(-spec.size // BLOCK) for spec in specs) * _LEAST_BLOCK > reader.left:
        raise _damaged("it is too short for its tensors")
    blocks = empty_sums([spec.size for spec in specs], [spec.dtype for spec in specs])
    for tensor_blocks in blocks:
        for block in tensor_blocks:
            _read_block(reader, block)
    if reader.left:
        raise _damaged(f"{reader.left} bytes are left over")
    return specs, weight, blocks


def _read_spec(reader: _Reader) -> TensorSpec:
    (length,) = reader.fields(_U8)
    name = bytes(reader.take(length))
    (dimensions,) = reader.fields(_U8)
    shape = reader.fields(struct.Struct(f"<{dimensions}Q"))
    # numpy evaluates some texts, and fails on them as Python does on a program.
    if _DESCR.fullmatch(name) is None:
        raise _damaged("its tensors are none that have a mean (a dtype that is not of numbers)")
    try:
        return averaged(TensorSpec(tuple(shape), np.dtype(name.decode("ascii"))))
    except (InconsistentTensors, TypeError, ValueError) as error:
        raise _damaged(f"its tensors are none that have a mean ({error})") from error


def _read_block(reader: _Reader, block: BlockSum) -> None:
    (limbs,) = reader.fields(_U16)
    if limbs > _MOST_LIMBS:
        raise _damaged("it has too many limbs")
    for _ in range(limbs):
        exponent, load = reader.fields(_LIMB)
        array = np.frombuffer(reader.take(8 * block.size), dtype="<i8").astype(np.int64)
        if exponent not in _EXPONENTS or exponent in block.limbs or load >= FULL:
            raise _damaged("a limb is not as limbs are")
        if int(array.max()) > load or int(array.min()) < -load:
            raise _damaged("a limb holds more than it says")
        block.limbs[exponent] = Limb(array, load=load)
    (spilled,) = reader.fields(_U32)
    for _ in range(spilled):
        (position,) = reader.fields(_U32)
        if position >= block.size:
            raise _damaged("a position lies outside of its block")
        block.spill[position] = reader.integer()
    (negative,) = reader.fields(_U32)
    for _ in range(negative):
        (position,) = reader.fields(_U32)
        if position >= block.size:
            raise _damaged("a negative zero lies outside of its block")
        block.add_minus_zeros(position, ONE_MINUS_ZERO, reader.integer())


def _damaged(reason: str) -> StoredDataError:
    return StoredDataError(f"stored accumulator is damaged: {reason}; add up the replies again")


_U8 = struct.Struct("<B")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")


class _Reader:
    """Read bytes from the front; raise ``StoredDataError`` if there are too few."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def check(self) -> None:
        """Verify the checksum at the end, and drop it."""
        body, check = self._data[: -_U32.size], self._data[-_U32.size :]
        if len(check) < _U32.size or zlib.crc32(body) != _U32.unpack(check)[0]:
            raise _damaged("the checksum differs, or it is cut short")
        self._data = body

    def take(self, count: int) -> memoryview:
        if count > self.left:
            raise _damaged("it is cut short")
        self._position += count
        return self._data[self._position - count : self._position]

    def fields(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))

    def integer(self) -> int:
        (length,) = self.fields(_U16)
        return int.from_bytes(self.take(length), "little", signed=True)
