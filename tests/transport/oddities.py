"""Messages that a peer may put into a queue and no client library would: for both transports."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from tests.rawamqp import nested_arrays, nested_tables, properties, table

__all__ = ["ODD", "Odd"]

NOT_UTF8 = b"\xff\xfe\x80" * 60


@dataclass(frozen=True)
class Odd:
    """One of them: its encoded properties, and what a client library makes of these."""

    encoded: bytes
    handed: dict[str, Any] = field(default_factory=dict)
    """As pika would hand them over."""
    unreadable: str = ""
    """A word of why pika cannot."""


def _unreadable(word: str, encoded: bytes) -> Odd:
    return Odd(encoded, unreadable=word)


def _header(value: bytes) -> bytes:
    return properties(headers=table((b"h", value)))


ODD = {
    "type": Odd(properties(type=NOT_UTF8), {"type_": NOT_UTF8}),
    "message id": Odd(properties(message_id=NOT_UTF8), {"message_id": NOT_UTF8}),
    "correlation id": Odd(properties(correlation_id=NOT_UTF8), {"correlation_id": NOT_UTF8}),
    "header name": Odd(
        properties(headers=table((NOT_UTF8, b"I\0\0\0\1"))), {"headers": {NOT_UTF8: 1}}
    ),
    "header text": Odd(
        _header(b"S" + struct.pack(">I", len(NOT_UTF8)) + NOT_UTF8), {"headers": {"h": NOT_UTF8}}
    ),
    "large headers": Odd(
        _header(b"S" + struct.pack(">I", 90_000) + b"h" * 90_000), {"headers": {"h": "h" * 90_000}}
    ),
    "array": Odd(_header(nested_arrays(3)), {"headers": {"h": [[]]}}),
    "void": Odd(_header(b"V"), {"headers": {"h": None}}),
    "other properties": Odd(
        properties(
            content_type=NOT_UTF8,
            content_encoding=NOT_UTF8,
            reply_to=NOT_UTF8,
            app_id=NOT_UTF8,
            priority=255,
            delivery_mode=1,
            timestamp=2**64 - 1,
        ),
        {"delivery_mode": 1},
    ),
    "time": _unreadable(
        "too large for defined data type", _header(b"T" + struct.pack(">Q", 2**62))
    ),
    "nested tables": _unreadable("RecursionError", _header(nested_tables(3_000))),
    "nested arrays": _unreadable("RecursionError", _header(nested_arrays(5_000))),
}
