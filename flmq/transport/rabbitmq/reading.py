"""A pika connection that survives headers which pika cannot decode.

pika decodes a message's properties in the connection's loop, and a property that it cannot decode
(a time beyond the year 9999, a float that is not a number, tables nested deeper than Python's
stack) ends the connection; the broker then redelivers the same message to the next one, forever.
This class delivers such a message without its properties instead, and says so. It overrides a
private method; a pika without that method works unchanged.
"""

from __future__ import annotations

import struct
from typing import Any

import pika
from pika import frame, spec

from flmq.common.failure_text import named_error
from flmq.transport.rabbitmq.properties import UnreadableProperties

__all__ = ["ReadingConnection"]

_FRAME_HEAD = struct.Struct(">BHI")
_CONTENT_HEAD = struct.Struct(">HHQ")
"""AMQP 0-9-1, section 4.2.6.1: class, weight, size of the body; then the properties."""


class ReadingConnection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types
    """Continue reading after a content header that cannot be decoded."""

    def _read_frame(self) -> Any:
        try:
            return super()._read_frame()
        except Exception as error:
            header = _header(self._frame_buffer, error)
            if header is None:
                raise
            return header


def _header(data: bytes, error: Exception) -> tuple[int, frame.Header] | None:
    """Return the content header at the start of ``data``, without properties; None if not one."""
    if len(data) < _FRAME_HEAD.size + _CONTENT_HEAD.size:
        return None
    kind, channel, size = _FRAME_HEAD.unpack_from(data)
    end = _FRAME_HEAD.size + size
    if kind != spec.FRAME_HEADER or data[end : end + 1] != bytes([spec.FRAME_END]):
        return None
    _, _, body_size = _CONTENT_HEAD.unpack_from(data, _FRAME_HEAD.size)
    reason = f"its properties cannot be read ({named_error(error)})"
    return end + 1, frame.Header(channel, body_size, UnreadableProperties(reason))
