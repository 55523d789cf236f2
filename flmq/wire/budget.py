"""What an envelope may hold, counted in its bytes before anything of it is made.

A few bytes of protobuf can become an object each: a megabyte of metrics without values would be
hundreds of megabytes of Python. So whoever reads, and whoever writes, counts first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

__all__ = ["MAX_ENTRIES", "MAX_ENVELOPE_BYTES", "OverBudget", "check_budget"]

MAX_ENVELOPE_BYTES = 8 << 20
"""Parameters travel apart; the rest of a message is small, and RabbitMQ 4 takes 16 MiB at most."""
MAX_ENTRIES = 100_000
"""Texts, byte strings, metrics and the like in one envelope; numbers of a list count an eighth."""

_COUNTED_FROM = 64 * 1024
"""Bytes below which nothing that an envelope could hold is much."""
_PACKED_PER_ENTRY = 8


class OverBudget(ValueError):
    """An envelope holds more than anybody sends."""


def check_budget(body: bytes | memoryview, kind: type[Message]) -> None:
    """Do nothing if ``body``, a message of ``kind``, may be decoded.

    What is no protobuf passes: the decoder says so.

    Raises:
        OverBudget: it is too long, or holds too much.
    """
    if len(body) > MAX_ENVELOPE_BYTES:
        raise OverBudget(f"{len(body)} bytes are more than the {MAX_ENVELOPE_BYTES} of a message")
    if len(body) >= _COUNTED_FROM:
        _count(memoryview(body), cast("Descriptor", kind.DESCRIPTOR))


def _count(body: memoryview, kind: Descriptor) -> None:
    """Walk through all messages in ``body``, one after the other."""
    entries, waiting = 0, [(body, kind)]
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
            if entries > MAX_ENTRIES:
                raise OverBudget(f"it holds more than {MAX_ENTRIES} values, the most of a message")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Number of each field, and its bytes where it has a length; ends at what is no protobuf."""
    at = 0
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
                case 5:
                    at += 4
                case _:
                    return
            yield key >> 3, value
    except IndexError:
        return


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at ``at``, and where the next begins."""
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise IndexError("no varint")
