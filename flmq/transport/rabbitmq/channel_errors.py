"""Find the message that made RabbitMQ close the channel.

The broker closes a channel with a code and a sentence, without the message's number; but the
sentence names what was wrong, and it processes messages in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from flmq.transport.base import Address, Message

__all__ = ["culprit", "size_limit"]

_SIZE = re.compile(r"message size (\d+)\D+(\d+)")
_EXCHANGE = re.compile(r"exchange '([^']*)'")
_TOPIC = re.compile(r"topic '([^']*)'")
_USER = re.compile(r"user_id property set to '([^']*)'")


def culprit(reason: str, sent: Iterable[tuple[Address, Message]]) -> int | None:
    """Return the index in ``sent`` (in order, unconfirmed) of the message at fault.

    None if the reason does not tell; then the messages must be sent again one by one.
    """
    for index, (address, message) in enumerate(sent):
        if _fits(reason, address, message):
            return index
    return None


def size_limit(reason: str) -> int | None:
    """Return the broker's max_message_size in bytes if ``reason`` is that it was exceeded."""
    match = _SIZE.search(reason)
    return int(match[2]) if match else None


def _fits(reason: str, address: Address, message: Message) -> bool:
    if match := _SIZE.search(reason):
        return len(message.body) == int(match[1])
    if match := _USER.search(reason):
        return message.user_id == match[1]
    match = _EXCHANGE.search(reason)
    topic = _TOPIC.search(reason)
    return (
        match is not None
        and match[1] == (address.exchange or "amq.default")
        and (topic is None or topic[1] == address.routing_key)
    )
