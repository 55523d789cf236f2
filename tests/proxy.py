"""A TCP proxy before a broker, to do to its connections what networks do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from flmq.broker.ports import free_ports

__all__ = ["Proxy"]


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    client: socket.socket
    broker: socket.socket
    to_client: threading.Event = field(default_factory=threading.Event)
    to_broker: threading.Event = field(default_factory=threading.Event)
    """Whether bytes flow that way."""
    open_ends: int = 2

    def __post_init__(self) -> None:
        self.to_client.set()
        self.to_broker.set()

    def cut(self) -> None:
        for end in (self.client, self.broker):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.to_client.set()
        self.to_broker.set()


class Proxy:
    """Forwards ``port`` on loopback to a target; use it as a context manager.

    With ``tls``, clients must speak TLS to it; the target is spoken to in the clear.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = (host, port)
        self._tls = tls
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._delay = 0.0
        self._bytes_per_second: float | None = None
        self.to_broker_bytes = 0
        self.to_client_bytes = 0
        # Not one that the system gives out by itself: it would be gone when we listen again.
        self.port: int = free_ports().amqp
        self._listener = self._listen(self.port)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), "a thread of the proxy hangs"

    # What a test does to its connections

    def cut(self) -> None:
        """Break every connection, both ways."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()

    def refuse(self) -> None:
        """Break every connection and refuse new ones."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def accept(self) -> None:
        """Let new connections in again, after `refuse`, were it once or twice."""
        if self._listener.fileno() < 0:
            self._listener = self._listen(self.port)

    def freeze(self, *, to_client: bool = True, to_broker: bool = True) -> None:
        """Hold back the bytes of present connections, which stay open; new ones are not touched."""
        with self._lock:
            for link in self._links:
                if to_client:
                    link.to_client.clear()
                if to_broker:
                    link.to_broker.clear()

    def retarget(self, host: str, port: int) -> None:
        """Lead new connections elsewhere, as a load balancer does."""
        self._target = (host, port)

    def thaw(self) -> None:
        """Let the bytes flow again that `freeze` holds back."""
        with self._lock:
            for link in self._links:
                link.to_client.set()
                link.to_broker.set()

    def delay(self, seconds: float) -> None:
        """Let everything arrive ``seconds`` late, each way."""
        self._delay = seconds

    def throttle(self, bytes_per_second: float | None) -> None:
        """Let no more than so many bytes through, each way of each connection; None: all."""
        self._bytes_per_second = bytes_per_second

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._links)

    # Inside

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._start(self._accept_all, listener)
        return listener

    def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            broker = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        broker.settimeout(None)
        link = _Link(client, broker)
        with self._lock:
            self._links.append(link)
        self._start(self._pump, link, client, broker, link.to_broker)
        self._start(self._pump, link, broker, client, link.to_client)

    def _pump(
        self, link: _Link, source: socket.socket, target: socket.socket, flows: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            for data in _chunks(source):
                flows.wait()
                rate = self._bytes_per_second
                if self._delay or rate:
                    time.sleep(self._delay + (len(data) / rate if rate else 0.0))
                target.sendall(data)
                self._count(link, target, len(data))
        link.cut()
        with self._lock:
            link.open_ends -= 1
            if link.open_ends == 0:
                link.client.close()
                link.broker.close()
                self._links.remove(link)

    def _count(self, link: _Link, target: socket.socket, num_bytes: int) -> None:
        with self._lock:
            if target is link.broker:
                self.to_broker_bytes += num_bytes
            else:
                self.to_client_bytes += num_bytes

    def _start(self, work: object, *args: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=args, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()


def _chunks(source: socket.socket) -> Iterator[bytes]:
    while data := source.recv(256 * 1024):
        yield data
