"""flmq's `Message` to AMQP properties, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pika

from flmq.transport.base import HeaderValue, Message

__all__ = ["from_amqp", "number_of", "to_properties"]

_APP = "flmq:"
_PERSISTENT = 2


def to_properties(message: Message, number: int) -> pika.BasicProperties:
    """Make the properties; ``number`` tells a message from others when it is returned."""
    expiration = message.expiration
    return pika.BasicProperties(
        app_id=f"{_APP}{number}",
        type=message.type or None,
        message_id=message.message_id or None,
        correlation_id=message.correlation_id or None,
        user_id=message.user_id,
        headers=dict(message.headers) or None,
        expiration=None if expiration is None else str(round(expiration * 1000)),
        delivery_mode=_PERSISTENT if message.persistent else 1,
    )


def number_of(properties: pika.BasicProperties) -> int | None:
    """Return the number of a returned message; None for what is none of ours."""
    app, found, number = (properties.app_id or "").partition(_APP)
    return int(number) if found and not app and number.isdecimal() else None


def from_amqp(properties: pika.BasicProperties, body: bytes) -> Message:
    """Make the message that was delivered."""
    return Message(
        body=body,
        type=properties.type or "",
        message_id=properties.message_id or "",
        correlation_id=properties.correlation_id or "",
        user_id=properties.user_id,
        headers=_headers(properties.headers or {}),
        expiration=_seconds(properties.expiration),
        persistent=properties.delivery_mode == _PERSISTENT,
    )


def _headers(headers: Mapping[str, Any]) -> dict[str, HeaderValue]:
    """Keep what `Message` can hold; the broker's own nested tables (x-death) are left out."""
    return {
        # pika's 64-bit integers are of a class of its own.
        name: int(value) if type(value).__name__ == "long" else value
        for name, value in headers.items()
        if isinstance(value, bool | int | str | bytes)
    }


def _seconds(expiration: str | None) -> float | None:
    """Read milliseconds; what others wrote may be no number."""
    try:
        return None if expiration is None else int(expiration) / 1000
    except ValueError:
        return None
