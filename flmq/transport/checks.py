"""Check that AMQP 0-9-1 can carry a message before it is sent, the same for every transport.

Sizes: a "short string" has at most 255 bytes (AMQP 0-9-1, section 4.2.5.3); all properties of a
message travel in one frame, whose size RabbitMQ limits (frame_max, 128 KiB).
"""

from __future__ import annotations

from collections.abc import Sequence

from flmq.common.errors import BrokerRefusal
from flmq.transport.base import Address, HeaderValue, Message, StreamOffset
from flmq.transport.topology import Queue, QueueType

__all__ = [
    "MAX_HEADER_BYTES",
    "SHORT_STRING_BYTES",
    "check_exclusive",
    "check_offset",
    "check_outgoing",
    "check_prefetch",
    "check_queues",
    "check_short",
    "wrong_user",
]

SHORT_STRING_BYTES = 255
MAX_HEADER_BYTES = 64 * 1024
"""Bytes of all of a message's headers, well within one frame."""
_MAX_EXPIRATION = 2**32 / 1000 - 1
"""Seconds; RabbitMQ counts milliseconds and refuses more than 2**32."""


def check_outgoing(address: Address, message: Message) -> bytes | memoryview:
    """Return the message's body in an immutable form, or refuse what no broker could carry.

    The body is copied, unless it is bytes or a read-only view of bytes.

    Raises:
        TypeError: the body is not bytes-like.
        BrokerRefusal: anything else is not allowed.
    """
    if not isinstance(message.body, bytes | bytearray | memoryview):
        raise TypeError(f"a message body is bytes-like, not {type(message.body).__name__}")
    for name, value in (
        ("exchange", address.exchange),
        ("routing key", address.routing_key),
        ("type", message.type),
        ("message_id", message.message_id),
        ("correlation_id", message.correlation_id),
        ("user_id", message.user_id or ""),
    ):
        check_short(name, value)
    _check_headers(message)
    if message.expiration is not None and not 0 <= message.expiration <= _MAX_EXPIRATION:
        raise BrokerRefusal(
            f"expiration of {message.expiration:g} s is outside of what RabbitMQ keeps: "
            f"use 0 to {_MAX_EXPIRATION:.0f} s, or None"
        )
    body = message.body
    return body if isinstance(body, memoryview) and _is_plain(body) else bytes(body)


def _is_plain(view: memoryview) -> bool:
    """Return whether a view is read-only, contiguous and of single bytes."""
    return view.readonly and view.ndim == 1 and view.itemsize == 1 and view.c_contiguous


def check_prefetch(prefetch: int, each: int = 0) -> None:
    """Refuse what does not fit AMQP's 16 bits, and a prefetch of 0, which would mean "no limit"."""
    if not 1 <= prefetch <= 65535:
        raise BrokerRefusal(f"prefetch is {prefetch}: choose 1 to 65535")
    if not 0 <= each <= 65535:
        raise BrokerRefusal(f"each is {each}: choose 0 to 65535")


def check_queues(queues: Sequence[str]) -> tuple[str, ...]:
    """Return the queue names to consume, without repetitions; refuse an empty list."""
    if not queues:
        raise BrokerRefusal("there is no queue to consume: name one at least")
    return tuple(dict.fromkeys(queues))


def check_exclusive(queue: Queue | None, *, exclusive: bool) -> None:
    """Refuse exclusive consumers where RabbitMQ ignores or forbids them."""
    if queue is None or not exclusive:
        return
    if queue.type is QueueType.STREAM:
        raise BrokerRefusal(f"stream {queue.name!r} is read by everybody: consume it without")
    alone = bool(queue.arguments.get("x-single-active-consumer"))
    if alone or queue.type is QueueType.QUORUM:
        raise BrokerRefusal(
            f"queue {queue.name!r} cannot be consumed exclusively "
            f"({'it has a single active consumer' if alone else 'quorum queues know no such thing'}"
            "): consume it without, x-single-active-consumer lets one consumer in at a time"
        )


def check_offset(queue: Queue | None, offset: StreamOffset | None) -> None:
    """Refuse a stream without an offset, and an offset for a queue that is not a stream."""
    if queue is None:
        return
    if queue.type is QueueType.STREAM and offset is None:
        raise BrokerRefusal(f"stream {queue.name!r} is read from an offset: give one")
    if queue.type is not QueueType.STREAM and offset is not None:
        raise BrokerRefusal(f"queue {queue.name!r} is no stream: it has no offsets")


def wrong_user(stated: str, user: str) -> BrokerRefusal:
    """Return the error for a message whose ``user_id`` is somebody else's."""
    return BrokerRefusal(
        f"message says user_id {stated!r}, but the connection is {user!r}'s: leave user_id out or "
        "connect as that user"
    )


def check_short(name: str, value: str) -> None:
    """Refuse a text that is too long for AMQP's short strings."""
    size = len(value) if value.isascii() else len(value.encode())
    if size > SHORT_STRING_BYTES:
        raise BrokerRefusal(
            f"{name} is {size} bytes long; AMQP carries at most {SHORT_STRING_BYTES}"
        )


def _check_headers(message: Message) -> None:
    total = 0
    for name, value in message.headers.items():
        check_short("header name", name)
        total += len(name.encode()) + 2 + _header_size(name, value)
    if total > MAX_HEADER_BYTES:
        raise BrokerRefusal(
            f"headers take {total} bytes; at most {MAX_HEADER_BYTES} fit: put data into the body"
        )


def _header_size(name: str, value: HeaderValue) -> int:
    match value:
        case bool():
            return 1
        case int():
            if not -(2**63) <= value < 2**63:
                raise BrokerRefusal(f"header {name!r}: {value} does not fit 64 bits")
            return 8
        case str():
            return 4 + len(value.encode())
        case bytes():
            return 4 + len(value)
    raise TypeError(f"header {name!r} is a {type(value).__name__}: use bool, int, str, bytes")
