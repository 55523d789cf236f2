"""AMQP frames by hand: publishes what no well-behaved client library would send."""

from __future__ import annotations

import socket
import struct
from typing import Self

from pika import frame, spec

from flmq.common.urls import BrokerUrl
from flmq.transport import Address

__all__ = ["RawPublisher", "nested_arrays", "nested_tables", "properties", "table"]

_SHORT = {
    "content_type": 15,
    "content_encoding": 14,
    "headers": 13,
    "delivery_mode": 12,
    "priority": 11,
    "correlation_id": 10,
    "reply_to": 9,
    "expiration": 8,
    "message_id": 7,
    "timestamp": 6,
    "type": 5,
    "app_id": 3,
}
"""AMQP 0-9-1's properties of class basic: the bit of each, in the order they are written."""


def properties(**values: bytes | int) -> bytes:
    """Properties, encoded: bytes are short strings, ``headers`` a whole table, the rest numbers."""
    flags, parts = 0, []
    for name, bit in _SHORT.items():
        value = values.pop(name, None)
        if value is None:
            continue
        flags |= 1 << bit
        if name == "timestamp":
            parts.append(struct.pack(">Q", value))
        elif isinstance(value, int):
            parts.append(bytes([value]))
        elif name == "headers":
            parts.append(value)
        else:
            parts.append(bytes([len(value)]) + value)
    assert not values, f"no such properties: {values}"
    return struct.pack(">H", flags) + b"".join(parts)


def table(*entries: tuple[bytes, bytes]) -> bytes:
    """A field table of names and encoded values (``b"S"`` and so on before each)."""
    body = b"".join(bytes([len(name)]) + name + value for name, value in entries)
    return struct.pack(">I", len(body)) + body


def nested_tables(depth: int) -> bytes:
    """An encoded value: a table in a table in a table."""
    inner = table()
    for _ in range(depth):
        inner = table((b"k", b"F" + inner))
    return b"F" + inner


def nested_arrays(depth: int) -> bytes:
    """An encoded value: an array in an array in an array."""
    inner = b""
    for _ in range(depth):
        inner = b"A" + struct.pack(">I", len(inner)) + inner
    return inner


class RawPublisher:
    """One connection, one channel, with confirms."""

    def __init__(self, url: BrokerUrl) -> None:
        """Connect as ``url`` says."""
        self._socket = socket.create_connection((url.host, url.port), timeout=20)
        self._received = b""
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(spec.Connection.Start)
        login = f"\0{url.user}\0{url.password}"
        self._say(0, spec.Connection.StartOk({}, "PLAIN", login, "en_US"))
        self._expect(spec.Connection.Tune)
        self._say(0, spec.Connection.TuneOk(1, 131072, 0))
        self._say(0, spec.Connection.Open(url.vhost))
        self._expect(spec.Connection.OpenOk)
        self._say(1, spec.Channel.Open())
        self._expect(spec.Channel.OpenOk)
        self._say(1, spec.Confirm.Select())
        self._expect(spec.Confirm.SelectOk)

    def publish(
        self,
        address: Address,
        body: bytes,
        encoded: bytes,
        *,
        routing_key: bytes | None = None,
        wait: bool = True,
    ) -> None:
        """Publish a small ``body`` with ``encoded`` properties, and ``wait`` for a confirm.

        ``routing_key`` stands for the address's where it is no text.
        """
        key = address.routing_key if routing_key is None else routing_key
        self._say(1, spec.Basic.Publish(0, address.exchange, key))
        head = struct.pack(">HHQ", spec.Basic.INDEX, 0, len(body)) + encoded
        self._send(spec.FRAME_HEADER, head)
        if body:
            self._send(spec.FRAME_BODY, body)
        if wait:
            self._expect(spec.Basic.Ack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _say(self, channel: int, method: object) -> None:
        self._socket.sendall(frame.Method(channel, method).marshal())

    def _send(self, kind: int, payload: bytes) -> None:
        head = struct.pack(">BHI", kind, 1, len(payload))
        self._socket.sendall(head + payload + bytes([spec.FRAME_END]))

    def _expect(self, wanted: type) -> None:
        while True:
            consumed, came = frame.decode_frame(self._received)
            if came is None:
                data = self._socket.recv(65536)
                assert data, f"the broker hung up before {wanted.__name__}"
                self._received += data
                continue
            self._received = self._received[consumed:]
            method = getattr(came, "method", None)
            if method is None:
                continue  # a heartbeat
            assert isinstance(method, wanted), f"{method} instead of {wanted.__name__}"
            return
