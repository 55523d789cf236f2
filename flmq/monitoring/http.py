"""A small HTTP server for scrapes and probes, which hostile requests cannot hurt.

It answers GET and HEAD for a few paths, one request a connection, and reads no body. A request that
is not complete after some seconds, or is too long, is dropped; of too many connections at a time
the oldest is closed, so that a probe comes through.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flmq.common.logger import logger
from flmq.monitoring.errors import MetricsPortInUse

__all__ = ["Answer", "HttpServer"]

_MOST_BYTES = 8192
_PATIENCE = 5.0
_MOST_CONNECTIONS = 32
_BACKLOG = 64
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
            500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class HttpServer:
    """Answers at one address until it is closed. Its threads end with the process."""

    def __init__(
        self,
        address: str,
        port: int,
        answers: Mapping[str, Callable[[], Answer]],
        *,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Answer each path of ``answers`` at ``address``; ``port`` 0: any that is free.

        A request has ``patience`` seconds to come, and its answer as many to go. ``clock`` gives
        monotonic seconds.

        Raises:
            MetricsPortInUse: the port is taken, or the address is not of this machine.
        """
        self._answers = answers
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._open: deque[socket.socket] = deque()
        self._closing = False
        try:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            self._listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
        except (OSError, OverflowError, UnicodeError) as error:
            raise MetricsPortInUse(address, port, str(error)) from error
        host, self.port = self._listener.getsockname()[:2]
        """The port that is open."""
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        """Where it answers, without a path."""
        self._thread = threading.Thread(target=self._accept_all, name="flmq-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering. Idempotent."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._thread.join(self._patience)
        with self._lock:
            left = list(self._open)
        for connection in left:
            _cut(connection)

    def _accept_all(self) -> None:
        pause = threading.Event()
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Closed; or no descriptor is left, which others of this process may give back.
                if not self._closing:
                    pause.wait(0.1)
                continue
            with self._lock:
                self._open.append(connection)
                oldest = self._open.popleft() if len(self._open) > _MOST_CONNECTIONS else None
            if oldest is not None:
                _cut(oldest)
            try:
                threading.Thread(
                    target=self._serve, args=(connection,), name="flmq-http-one", daemon=True
                ).start()
            except RuntimeError:  # no thread is to be had
                self._forget(connection)
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                head = self._read_head(connection)
                if head is not None:
                    connection.settimeout(self._patience)
                    connection.sendall(self._answer(head))
                    connection.shutdown(socket.SHUT_WR)
        except OSError:
            return  # whoever asked is gone
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(connection)

    def _read_head(self, connection: socket.socket) -> bytes | None:
        """Return a request up to its empty line; None if it does not come, or is too long."""
        deadline, head = self._clock() + self._patience, b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left = deadline - self._clock()
            if left <= 0 or len(head) > _MOST_BYTES:
                return None
            connection.settimeout(left)
            more = connection.recv(4096)
            if not more:
                return None
            head += more
        return head

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\n", 1)[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return _written(Answer(400, b"this is no request\n"))
        method, target = words[0], words[1].partition("?")[0]
        find = self._answers.get(target)
        if find is None:
            paths = ", ".join(self._answers)
            answer = Answer(404, f"there is nothing here: ask for {paths}\n".encode())
        elif method not in ("GET", "HEAD"):
            answer = Answer(405, b"only GET and HEAD are answered\n")
        else:
            try:
                answer = find()
            except Exception:  # a bug must end neither the thread's log nor the process
                logger.exception("%s could not be answered", target)
                answer = Answer(500, b"this could not be answered: see the log\n")
        return _written(answer, with_body=method != "HEAD")


def _written(answer: Answer, *, with_body: bool = True) -> bytes:
    lines = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    )
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode("latin-1") + (answer.body if with_body else b"")


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
