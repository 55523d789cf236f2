"""What pika does not offer as an option, in one guarded place.

pika reads 4 KiB at a time and copies its frame buffer for each piece. Receiving 315 MB in messages
of 1 MiB took 0.75 s of CPU that way, and 0.37 s with 256 KiB (pika 1.4.4, loopback). And glibc
gives memory back to the system after each large message only to take it again for the next, page
fault by page fault: keeping some tens of megabytes halves the rest; 64 KiB at a time is then best.
What is sent pika copies four times: whole, in pieces of a frame, and each frame twice as it is put
together.
"""

from __future__ import annotations

import ctypes
import logging
import struct
from typing import Any

from pika import channel, frame, spec
from pika.adapters.utils import io_services_utils

from flmq.common.buffers import KEEP_MEMORY

__all__ = ["RECEIVE_BYTES", "keep_memory", "sendable", "tune"]

RECEIVE_BYTES = 64 * 1024

_FRAME_HEAD = struct.Struct(">BHI")
_FRAME_END = bytes([spec.FRAME_END])
_views = False
"""Whether pika takes views to send."""

# mallopt(3): parameter, and bytes.
_M_TRIM_THRESHOLD = (-1, 32 << 20)
_M_TOP_PAD = (-2, 8 << 20)
_M_MMAP_THRESHOLD = (-3, 32 << 20)


def tune() -> bool:
    """Raise pika's receive size, and leave reports to us; False when this pika has no such thing.

    pika logs each failed attempt as an error with a traceback; the connection's listener is told
    in one line instead. Whoever sets the level of the logger ``pika`` gets them all the same.
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
    return _tune_sending()


def _tune_sending() -> bool:
    """Send views of bytes, not copies of them; each frame is put together in one step."""
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
    """What this pika takes for a message's body: a view as it is, or a copy of it."""
    return body if _views else bytes(body)


def _marshal(body: frame.Body) -> bytes:
    """A frame of a message's body: AMQP 0-9-1, section 4.2.3."""
    head = _FRAME_HEAD.pack(spec.FRAME_BODY, body.channel_number, len(body.fragment))
    return b"".join((head, body.fragment, _FRAME_END))


def keep_memory() -> bool:
    """Have glibc keep up to 32 MiB of freed memory; False where there is no glibc.

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
