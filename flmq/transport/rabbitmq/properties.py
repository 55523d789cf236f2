"""Convert flmq's `Message` to AMQP properties, and back."""

from __future__ import annotations

from typing import Any

import pika

from flmq.transport.arriving import message_of, text_of, unreadable_message
from flmq.transport.base import Message

__all__ = ["UnreadableProperties", "from_amqp", "number_of", "to_properties"]

_APP = "flmq:"
_PERSISTENT = 2


class UnreadableProperties(pika.BasicProperties):  # type: ignore[misc]  # pika has no types
    """Stands for properties that pika could not read."""

    def __init__(self, reason: str) -> None:
        """Leave all properties unset; ``reason`` says why."""
        super().__init__()
        self.reason = reason


def to_properties(message: Message, number: int) -> pika.BasicProperties:
    """Return the AMQP properties; ``number`` identifies a message if it is returned."""
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
    """Return the number of a returned message; None if it is not one of ours."""
    app, found, number = text_of(properties.app_id).partition(_APP)
    return int(number) if found and not app and number.isdecimal() else None


def from_amqp(properties: Any, body: bytes) -> Message:
    """Return the message that was delivered."""
    if isinstance(properties, UnreadableProperties):
        return unreadable_message(body, properties.reason)
    return message_of(
        body,
        type_=properties.type,
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        user_id=properties.user_id,
        headers=properties.headers,
        expiration=properties.expiration,
        delivery_mode=properties.delivery_mode,
    )
