"""Tune what pika does not offer as options, guarded and in one place.

pika reads 4 KiB at a time and copies its frame buffer for each piece. Receiving 315 MB in messages
of 1 MiB took 0.75 s of CPU that way, and 0.37 s with 256 KiB (pika 1.4.4, loopback). And glibc
returns memory to the system after each large message only to get it back for the next, page fault
by page fault: keeping some tens of megabytes halves the rest; 64 KiB at a time is then best. When
sending, pika copies four times: the whole body, in pieces of a frame, and each frame twice as it is
assembled.
"""

from __future__ import annotations

import ctypes
import logging
import struct
from collections.abc import Callable
from typing import Any

from pika import channel, frame, spec
from pika.adapters.utils import io_services_utils

from flmq.common.buffers import KEEP_MEMORY

__all__ = ["RECEIVE_BYTES", "TLS_RECEIVE_BYTES", "basic_consume", "keep_memory", "sendable", "tune"]

RECEIVE_BYTES = 64 * 1024
TLS_RECEIVE_BYTES = 16 * 1024
"""A TLS record, RFC 8446 section 5.1: a receive returns no more, and whoever asks for more pays for
the larger buffer. 400 MiB took 0.7 s of CPU in place of 1.0 s with 64 KiB (Python 3.11)."""

_FRAME_HEAD = struct.Struct(">BHI")
_FRAME_END = bytes([spec.FRAME_END])
_views = False
"""Whether pika can send memoryviews."""

# mallopt(3): parameter, and bytes.
_M_TRIM_THRESHOLD = (-1, 32 << 20)
_M_TOP_PAD = (-2, 8 << 20)
_M_MMAP_THRESHOLD = (-3, 32 << 20)


def tune() -> bool:
    """Raise pika's receive size, and silence its reports; False if this pika has no such setting.

    pika logs each failed attempt as an error with a traceback; the connection's listener gets one
    line instead. Setting the level of the logger ``pika`` shows them all again.
    """
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
    transport: Any = getattr(io_services_utils, "_AsyncTransportBase", None)
    names = ("_MAX_RECV_BYTES", "_MAX_CONSUME_BYTES")
    if not all(isinstance(getattr(transport, name, None), int) for name in names):
        return False
    for name in names:
        setattr(transport, name, max(RECEIVE_BYTES, getattr(transport, name)))
    over_tls: Any = getattr(io_services_utils, "_AsyncSSLTransport", None)
    if over_tls is not None:
        over_tls._MAX_RECV_BYTES = TLS_RECEIVE_BYTES
    return _tune_sending()


def _tune_sending() -> bool:
    """Send views of bytes, not copies of them, and assemble each frame in one step."""
    global _views
    sample = frame.Body(7, b"sample")
    original = getattr(channel, "as_bytes", None)
    if original is None or _marshal(sample) != sample.marshal():
        return False

    def as_bytes(value: Any) -> Any:
        return value if isinstance(value, memoryview) else original(value)

    if not _views:
        frame.Body.marshal, channel.as_bytes = _marshal, as_bytes
        _views = True
    return True


def sendable(body: bytes | memoryview) -> bytes | memoryview:
    """Return a body that this pika can send: the view itself, or a copy of it."""
    return body if _views else bytes(body)


def _marshal(body: frame.Body) -> bytes:
    """Return a body frame: AMQP 0-9-1, section 4.2.3."""
    head = _FRAME_HEAD.pack(spec.FRAME_BODY, body.channel_number, len(body.fragment))
    return b"".join((head, body.fragment, _FRAME_END))


def basic_consume(
    on_channel: Any,
    queue: str,
    on_message: Callable[..., None],
    *,
    exclusive: bool,
    arguments: dict[str, Any] | None,
    callback: Callable[[Any], None] | None = None,
) -> None:
    """Consume ``queue`` over a channel; without ``callback``, do not wait for the broker's answer.

    pika always waits, and sends the next method after that: for thousands of queues on a channel,
    thousands of round trips.
    """
    consumers, rpc = getattr(on_channel, "_consumers", None), getattr(on_channel, "_rpc", None)
    if callback is not None or not isinstance(consumers, dict) or rpc is None:
        on_channel.basic_consume(
            queue, on_message, exclusive=exclusive, arguments=arguments, callback=callback
        )
        return
    tag = f"flmq.{len(consumers)}.{queue}"[:255]
    consumers[tag] = on_message
    rpc(
        spec.Basic.Consume(
            queue=queue,
            consumer_tag=tag,
            exclusive=exclusive,
            arguments=arguments or {},
            nowait=True,
        )
    )


def keep_memory() -> bool:
    """Make glibc keep up to 32 MiB of freed memory; return False without glibc.

    ``FLMQ_KEEP_MEMORY=0`` leaves the allocator as it is.
    """
    if not KEEP_MEMORY:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows, which has no such handle
        return False
    done = [mallopt(*setting) for setting in (_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD)]
    return all(done)
