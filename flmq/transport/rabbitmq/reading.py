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
from pika.channel import ContentFrameAssembler

from flmq.common.failure_text import named_error
from flmq.transport.arriving import MAX_BODY_BYTES, too_large
from flmq.transport.rabbitmq.properties import UnreadableProperties

__all__ = ["BoundedAssembler", "ReadingConnection", "bound"]

_FRAME_HEAD = struct.Struct(">BHI")
_CONTENT_HEAD = struct.Struct(">HHQ")
"""AMQP 0-9-1, section 4.2.6.1: class, weight, size of the body; then the properties."""


class BoundedAssembler(ContentFrameAssembler):  # type: ignore[misc]  # pika has no types
    """Put messages together from their frames; let the body of one that is too large pass by.

    The broker may take messages of 128 MiB and more (max_message_size), and sends as many as the
    prefetch allows: what nobody can use is not to fill the memory first.
    """

    def __init__(self) -> None:
        """Begin between two messages."""
        super().__init__()
        self._header: frame.Header | None = None
        """That of a message which is passing by, as one without a body."""
        self._left = 0

    def process(self, frame_value: Any) -> Any:
        """Take a frame; return method, header and body of a message that is complete."""
        if isinstance(frame_value, frame.Header) and frame_value.body_size > MAX_BODY_BYTES:
            properties = UnreadableProperties(too_large(frame_value.body_size))
            self._header = frame.Header(frame_value.channel_number, 0, properties)
            self._left = frame_value.body_size
            return None
        if self._header is None or not isinstance(frame_value, frame.Body):
            return super().process(frame_value)
        self._left -= len(frame_value.fragment)
        if self._left > 0:
            return None
        header, self._header = self._header, None
        return super().process(header)


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


def bound(channel: Any) -> None:
    """Have ``channel`` receive no bodies that are too large; of another pika, as ever."""
    if hasattr(channel, "_content_assembler"):
        channel._content_assembler = BoundedAssembler()


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
