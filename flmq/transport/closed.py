"""What is said to who uses a transport, or a part of it, that is closed or gone."""

from __future__ import annotations

from flmq.common.errors import TransportClosed
from flmq.common.logger import get_logger
from flmq.transport.base import Delivery, offset_of

__all__ = ["consumer_closed", "not_ours", "publisher_closed", "say_dropped", "transport_closed"]

_log = get_logger(__name__)


def transport_closed() -> TransportClosed:
    """Return the error for a transport that was closed."""
    return TransportClosed("the transport is closed: open another one")


def consumer_closed() -> TransportClosed:
    """Return the error for a consumer that was closed."""
    return TransportClosed("the consumer is closed: open another one")


def publisher_closed() -> TransportClosed:
    """Return the error for a message whose publisher was closed too early."""
    return TransportClosed("the publisher was closed before the broker confirmed the message")


def not_ours() -> ValueError:
    """Return the error for an ack of what another consumer received."""
    return ValueError("a delivery is settled with the consumer that received it")


def say_dropped(verb: str, delivery: Delivery) -> None:
    """Log that an ack or reject came after its connection was lost."""
    if offset_of(delivery) is not None:
        return  # a stream keeps its messages: an ack only asks for more
    _log.info(
        "%s of a delivery from %s dropped: its connection is gone, it will be delivered again",
        verb,
        delivery.queue,
    )
