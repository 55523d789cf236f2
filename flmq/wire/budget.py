"""Limit what an envelope may hold by counting its bytes before decoding.

Each few bytes of protobuf can become an object: a megabyte of empty metrics would take hundreds of
megabytes in Python. So both reader and writer count first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

__all__ = [
    "MAX_ENTRIES",
    "MAX_ENVELOPE_BYTES",
    "MAX_SUM_VALUES",
    "OverBudget",
    "check_budget",
    "count_values",
]

MAX_ENVELOPE_BYTES = 8 << 20
"""Bytes. Parameters travel separately; the rest is small, and RabbitMQ 4 takes at most 16 MiB."""
MAX_ENTRIES = 100_000
"""Texts, byte strings, metrics etc. in one envelope; a number in a list counts as an eighth."""
MAX_SUM_VALUES = 4_000_000
"""As `MAX_ENTRIES`, in all entries of a partial sum together: some 500 MB of Python's objects."""

_COUNTED_FROM = 64 * 1024
"""Bytes below which an envelope cannot hold too much, so that it is not counted."""
_PACKED_PER_ENTRY = 8


class OverBudget(ValueError):
    """An envelope is larger, or holds more items, than is allowed."""


def check_budget(body: bytes | memoryview, kind: type[Message]) -> None:
    """Check that ``body``, a message of ``kind``, is safe to decode.

    Bytes that are not protobuf pass: the decoder refuses them.

    Raises:
        OverBudget: it is too long, or holds too many items.
    """
    if len(body) > MAX_ENVELOPE_BYTES:
        raise OverBudget(f"{len(body)} bytes are more than the {MAX_ENVELOPE_BYTES} of a message")
    if len(body) >= _COUNTED_FROM:
        count_values(memoryview(body), kind)


def count_values(body: memoryview, kind: type[Message], most: int = MAX_ENTRIES) -> int:
    """Return the number of items of all messages in ``body``, counted without recursion.

    Raises:
        OverBudget: there are more than ``most``.
    """
    entries = 0
    waiting = [(body, cast("Descriptor", kind.DESCRIPTOR))]
    while waiting:
        data, of = waiting.pop()
        for number, value in _fields(data):
            entries += 1
            field = of.fields_by_number.get(number)
            if value is not None and field is not None:
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    waiting.append((value, cast("Descriptor", field.message_type)))
                elif field.type not in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
                    entries += len(value) // _PACKED_PER_ENTRY
            if entries > most:
                raise OverBudget(f"it holds more than {most} values, the most that it may")
    return entries


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Yield the number of each field, and its bytes if any; stop at invalid protobuf.

    A group, which no field of ours is, is skipped by every decoder, with what is in it; what
    follows it is not.
    """
    at = groups = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            value: memoryview | None = None
            match key & 7:
                case 0:
                    _, at = _varint(data, at)
                case 1:
                    at += 8
                case 2:
                    length, at = _varint(data, at)
                    value, at = data[at : at + length], at + length
                case 3:
                    groups += 1
                case 4:
                    groups -= 1
                case 5:
                    at += 4
                case _:
                    return
            yield key >> 3, None if groups else value
    except IndexError:
        return


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at position ``at``, and the position after it."""
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise IndexError("no varint")
