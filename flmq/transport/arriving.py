"""Convert what a broker delivers to a `Message`, whatever its sender put into it.

AMQP's short strings are unchecked bytes, headers are tables of any depth, and the client library
passes on whatever it decodes. Here, once, everything is converted to the types that `Message`
declares, so that no code above needs to check. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping

from flmq.transport.base import HeaderValue, Message

__all__ = ["MAX_BODY_BYTES", "message_of", "text_of", "too_large", "unreadable_message"]

MAX_BODY_BYTES = 16 << 20
"""Bytes of a body, twice those of the largest message that anybody reads: more is not received."""
_PERSISTENT = 2
_MAX_EXPIRATION_MS = 2**32

_COPIES = ("CC", "BCC", b"CC", b"BCC")


def message_of(
    body: bytes,
    *,
    type_: object = None,
    message_id: object = None,
    correlation_id: object = None,
    user_id: object = None,
    headers: object = None,
    expiration: object = None,
    delivery_mode: object = None,
) -> Message:
    """Make a message of AMQP properties that may hold anything; None means not set."""
    if len(body) > MAX_BODY_BYTES:
        return unreadable_message(b"", too_large(len(body)))
    return Message(
        body=body,
        type=text_of(type_),
        message_id=text_of(message_id),
        correlation_id=text_of(correlation_id),
        user_id=None if user_id is None else text_of(user_id),
        headers=_headers(headers),
        expiration=_seconds(expiration),
        persistent=delivery_mode == _PERSISTENT,
        copied=isinstance(headers, Mapping) and any(name in headers for name in _COPIES),
    )


def unreadable_message(body: bytes, reason: str) -> Message:
    """Make a message whose properties could not be read; ``reason`` says why."""
    return Message(body, persistent=True, unreadable=reason or "unreadable properties")


def too_large(size: int) -> str:
    """Return why a message of ``size`` bytes cannot be read."""
    return f"its body of {size} bytes is not received: {MAX_BODY_BYTES} at most"


def text_of(value: object) -> str:
    """Return text that UTF-8 can encode, escaping what it cannot; for a non-text, its type only."""
    match value:
        case None:
            return ""
        case str():
            return value.encode(errors="backslashreplace").decode()
        case bytes():
            return value.decode(errors="backslashreplace")
    return f"<{type(value).__name__}>"


def _headers(headers: object) -> dict[str, HeaderValue]:
    """Keep the headers that `Message` can hold; drop the broker's own nested tables (x-death)."""
    if not isinstance(headers, Mapping):
        return {}
    kept: dict[str, HeaderValue] = {}
    for name, value in headers.items():
        match value:
            case bool() | bytes():
                kept[text_of(name)] = value
            case int() if -(2**63) <= value < 2**63:
                # pika has its own class for 64-bit integers.
                kept[text_of(name)] = int(value)
            case str():
                kept[text_of(name)] = text_of(value)
    return kept


def _seconds(expiration: object) -> float | None:
    """Convert text of milliseconds to seconds; None if not a number that a queue accepts."""
    try:
        milliseconds = int(text_of(expiration))
    except ValueError:
        return None
    return milliseconds / 1000 if 0 <= milliseconds <= _MAX_EXPIRATION_MS else None
