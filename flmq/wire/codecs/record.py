"""The head of one encoded tensor: its scheme, its base, its size, and a checksum.

::

    u8   layout, 1                      u64  bytes of values when decoded
    u8   code of the scheme             u16  bytes of the .npy header that follows
    u8   flags                          u32  CRC-32 of everything else
    u8   bytes of a word                .npy header, then blocks (see blocks.py)

All little-endian. The .npy header is omitted if it equals the base's.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntFlag

from flmq.common.errors import MalformedMessage
from flmq.wire.codecs.base import Buffer

__all__ = ["Flags", "Head", "read_record", "write_record"]

_LAYOUT = 1
_HEAD = struct.Struct("<BBBBQH")
_CRC = struct.Struct("<I")
_START = _HEAD.size + _CRC.size


class Flags(IntFlag):
    """How to interpret the blocks."""

    DELTA = 1
    """The blocks hold differences from the base."""
    BASE_HEADER = 2
    """The .npy header is the base's."""
    FORTRAN = 4
    """The first index runs fastest (Fortran order)."""
    BIG_ENDIAN = 8
    """Words are big-endian."""


@dataclass(frozen=True, slots=True)
class Head:
    """The fields ahead of the blocks."""

    code: int
    flags: Flags
    width: int
    """Bytes of a word: 1, 2, 4 or 8."""
    values_bytes: int
    """Bytes of the values when decoded, without the .npy header."""
    header: bytes
    """The .npy header; empty if it is the base's, or the bytes are no .npy."""

    @property
    def count(self) -> int:
        """Number of words."""
        return self.values_bytes // self.width


def write_record(head: Head, blocks: list[Buffer]) -> bytes:
    """Serialize head and blocks."""
    fixed = _HEAD.pack(
        _LAYOUT, head.code, head.flags, head.width, head.values_bytes, len(head.header)
    )
    crc = 0
    for part in (fixed, head.header, *blocks):
        crc = zlib.crc32(part, crc)
    return b"".join((fixed, _CRC.pack(crc), head.header, *blocks))


def read_record(record: Buffer) -> tuple[Head, memoryview]:
    """Return the head, and the blocks that follow it.

    Raises:
        MalformedMessage: not a record of this layout, or damaged.
    """
    view = memoryview(record)
    if len(view) < _START:
        raise MalformedMessage(f"{len(view)} bytes are less than the head of an encoded tensor")
    layout, code, bits, width, values_bytes, header_bytes = _HEAD.unpack_from(view)
    if layout != _LAYOUT:
        raise MalformedMessage(
            f"layout {layout} of encoded tensors is not known here, {_LAYOUT} is"
        )
    (crc,) = _CRC.unpack_from(view, _HEAD.size)
    if zlib.crc32(view[_START:], zlib.crc32(view[: _HEAD.size])) != crc:
        raise MalformedMessage("its check sum is wrong: truncated, or damaged on the way")
    end = _START + header_bytes
    head = Head(code, Flags(bits), width, values_bytes, bytes(view[_START:end]))
    _check(head, header_bytes)
    return head, view[end:]


def _check(head: Head, header_bytes: int) -> None:
    """Refuse a head that no encoder writes."""
    if int(head.flags) >= 2 * Flags.BIG_ENDIAN:
        raise MalformedMessage(f"flags {int(head.flags)} are not known here")
    if head.width not in (1, 2, 4, 8) or head.values_bytes % head.width:
        raise MalformedMessage(f"{head.values_bytes} bytes are no words of {head.width}")
    if len(head.header) < header_bytes:
        raise MalformedMessage(f"its .npy header ends after {len(head.header)} bytes")
    if Flags.BASE_HEADER in head.flags and (header_bytes or Flags.DELTA not in head.flags):
        raise MalformedMessage("it has the base's header and another, or no base")
