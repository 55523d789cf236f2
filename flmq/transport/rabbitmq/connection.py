"""One connection to RabbitMQ, owned by one thread, reopened whenever it is lost.

The thread runs pika's loop for as long as the connection is wanted, across any number of AMQP
connections: it serves heartbeats, and the only user code that runs on it are callbacks of futures
and the listener. Other threads post actions to it. Those who use the connection (publisher,
consumer, control) attach as a `ConnectionUser` and are called on the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import pika
from pika.adapters.select_connection import IOLoop

from flmq.common.errors import BrokerAccessRefused, BrokerError, TransportClosed
from flmq.common.logger import get_logger
from flmq.common.urls import BrokerUrl
from flmq.transport.base import ConnectionState, StateListener
from flmq.transport.rabbitmq.errors import translate
from flmq.transport.rabbitmq.forks import forget, let_go_in_children
from flmq.transport.rabbitmq.login import ConnectionLogin
from flmq.transport.rabbitmq.reading import ReadingConnection
from flmq.transport.rabbitmq.reconnection import Reconnection
from flmq.transport.rabbitmq.states import StateReports
from flmq.transport.rabbitmq.together import Together
from flmq.transport.rabbitmq.tuning import keep_memory, tune

__all__ = ["CLOSE_SECONDS", "ConnectionUser", "IOConnection"]

_log = get_logger(__name__)

CLOSE_SECONDS = 3.0
"""Seconds that a peer may take to answer Connection.Close before the socket is closed."""


class ConnectionUser(Protocol):
    """A user of a connection; all calls are made on the connection's thread."""

    def connection_up(self, connection: pika.SelectConnection) -> None:
        """Start, or start over: a new AMQP connection is open."""

    def connection_lost(self, problem: BrokerError) -> None:
        """Stop: all channels are gone."""


class IOConnection:
    """A connection that reconnects. Thread-safe, unless stated otherwise."""

    def __init__(
        self,
        url: BrokerUrl,
        role: str,
        together: Together,
        *,
        name: str = "",
        listener: StateListener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; see `open`. RabbitMQ's tools show ``role`` and ``name``.

        While the broker is away, it waits ``together`` with the transport's other connections.
        ``clock`` gives seconds.
        """
        tune()
        keep_memory()
        self.url = url
        self._role = role
        self._login = ConnectionLogin(url, f"{name or 'flmq'} {role}", self)
        self.states = StateReports(role, listener)
        """Reports to the listener. For the connection's thread only."""
        self._loop = IOLoop()
        let_go_in_children(self._loop)
        self._thread = threading.Thread(target=self._run, name=f"flmq-{role}", daemon=True)
        self._opened: Future[None] = Future()
        self._patient = False
        self._retry = Reconnection(self._loop, self.post, self._attempt, together, clock)
        self._users: list[ConnectionUser] = [self._login]
        self._amqp: Any = None
        """The current pika connection, open or not; None if there is none."""
        self._up = False
        self._closing = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        """Held while posting and when ending, so that nobody posts to a closed loop."""

    # For any thread

    def open(self, *, patient: bool = False) -> None:
        """Connect and wait for it.

        Raises:
            BrokerAccessRefused: at once.
            BrokerUnavailable: unless ``patient``.
        """
        self._patient = patient
        self._thread.start()
        self._opened.result()

    def post(self, action: Callable[[], None]) -> None:
        """Run ``action`` soon on the connection's thread; do nothing once it has ended."""
        with self._lock:
            if not self._ended.is_set():
                self._loop.add_callback_threadsafe(action)

    @property
    def is_ended(self) -> bool:
        """Whether it was closed, or never opened, and will not be reopened."""
        return self._ended.is_set()

    @property
    def arrived(self) -> int:
        """Bytes received over the current AMQP connection; 0 if there is none."""
        amqp = self._amqp
        # pika counts whole frames, of 128 KiB; what it has of the next one is a private attribute.
        begun = len(getattr(amqp, "_frame_buffer", b""))
        return int(getattr(amqp, "bytes_received", 0)) + begun

    def is_own_thread(self) -> bool:
        """Return whether the caller runs on this connection's thread, which must not wait."""
        return threading.current_thread() is self._thread

    def attach(self, user: ConnectionUser) -> None:
        """Attach ``user``, which is started at once if the connection is open."""

        def attach() -> None:
            self._users.append(user)
            if self._up:
                user.connection_up(self._amqp)

        self.post(attach)

    def detach(self, user: ConnectionUser) -> None:
        """Detach ``user``."""
        self.post(lambda: self._users.remove(user) if user in self._users else None)

    def close(self) -> None:
        """Close, and wait until the thread has ended. Idempotent."""
        self.post(self._shut)
        if self._thread.is_alive() and not self.is_own_thread():
            self._thread.join(2 * CLOSE_SECONDS)

    # For the connection's thread

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run ``action`` on this thread after ``seconds``."""
        self._loop.call_later(seconds, action)

    def _run(self) -> None:
        self.post(self._attempt)
        while not self._ended.is_set():
            try:
                self._loop.start()
            except BaseException as error:  # a bug must not end the thread and hang its users
                _log.exception("error on the %s connection; it is made again", self._role)
                self._broken(error)
        forget(self._loop)
        self._loop.close()

    def _broken(self, error: BaseException) -> None:
        if self._amqp is None:
            self._on_open_error(None, error)
        else:
            self._abort()

    def _attempt(self) -> None:
        if self._closing:
            return
        try:
            parameters = self._login.parameters()
        except BrokerError as error:
            self._on_open_error(None, error)
            return
        self._amqp = ReadingConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
            custom_ioloop=self._loop,
        )

    def _on_open(self, connection: Any) -> None:
        self._up = True
        self.states.up(connection)
        for user in list(self._users):
            user.connection_up(connection)
        if not self._opened.done():
            self._opened.set_result(None)
        self._retry.up()

    def _on_open_error(self, _: Any, error: BaseException) -> None:
        self._amqp = None
        problem = translate(error, self.url)
        final = isinstance(problem, BrokerAccessRefused) or not self._patient
        if self._closing or (final and not self._opened.done()):
            self._end(TransportClosed("closed while connecting") if self._closing else problem)
            return
        self._try_again(problem)

    def _on_close(self, _: Any, error: BaseException) -> None:
        self._amqp = None
        self._up = False
        self.states.down()
        problem = translate(error, self.url)
        for user in list(self._users):
            user.connection_lost(problem)
        if self._closing:
            self._end(problem)
            return
        self._try_again(problem)

    def _try_again(self, problem: BrokerError) -> None:
        seconds = self._retry.again(problem)
        self.states.tell(ConnectionState.LOST, f"{problem}; next try in {seconds:.1f} s")

    def _shut(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._amqp is None:
            self._end(TransportClosed("closed while it was lost"))
            return
        self._loop.call_later(CLOSE_SECONDS, self._abort)
        if not self._amqp.is_closing:
            self._amqp.close()

    def _abort(self) -> None:
        """Close the socket without asking the peer, which may be gone."""
        error = pika.exceptions.StreamLostError("closed without an answer from the broker")
        # pika only offers to wait; before there is a stream, its own timeout ends it.
        if self._amqp is not None and getattr(self._amqp, "_transport", None) is not None:
            self._amqp._terminate_stream(error)

    def _end(self, problem: BrokerError) -> None:
        self._retry.end()
        with self._lock:
            self._ended.set()
        self._loop.stop()
        self.states.ended()
        if not self._opened.done():
            self._opened.set_exception(problem)
