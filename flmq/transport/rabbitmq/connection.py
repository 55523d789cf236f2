"""One connection to RabbitMQ, owned by one thread, made again whenever it is lost.

The thread runs pika's loop for as long as the connection is wanted, across any number of AMQP
connections: it serves heartbeats, and nothing of a user's ever runs on it but the callbacks of
futures and the listener. Others post to it. Those who use the connection (publisher, consumer,
control) attach as a `ConnectionUser` and are called on the thread.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import pika
from pika.adapters.select_connection import IOLoop

from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    TooManyConnections,
    TransportClosed,
)
from flmq.common.urls import BrokerUrl
from flmq.transport.base import ConnectionEvent, ConnectionState, StateListener
from flmq.transport.rabbitmq.errors import translate
from flmq.transport.rabbitmq.forks import forget, let_go_in_children
from flmq.transport.rabbitmq.parameters import connection_parameters
from flmq.transport.rabbitmq.reading import ReadingConnection
from flmq.transport.rabbitmq.together import Together
from flmq.transport.rabbitmq.tuning import keep_memory, tune
from flmq.transport.retry import Backoff, current_pace

__all__ = ["ConnectionUser", "IOConnection"]

_log = logging.getLogger(__name__)

_numbers = itertools.count(1)
_CLOSE_SECONDS = 3.0
"""How long a peer may take to answer Connection.Close before the socket is closed."""


class ConnectionUser(Protocol):
    """Who works over a connection; every call comes on its thread."""

    def connection_up(self, connection: pika.SelectConnection) -> None:
        """Begin, or begin again: a fresh AMQP connection is open."""

    def connection_lost(self, problem: BrokerError) -> None:
        """Stop: its channels are gone with it."""


class IOConnection:
    """A connection that comes back. Thread-safe, except where it says otherwise."""

    def __init__(
        self,
        url: BrokerUrl,
        role: str,
        together: Together,
        *,
        name: str = "",
        listener: StateListener | None = None,
    ) -> None:
        """Prepare; see `open`. ``role`` and ``name`` are shown by RabbitMQ's tools.

        While the broker is away it is waited for ``together`` with the transport's others.
        """
        tune()
        keep_memory()
        self.url = url
        self._role = role
        self._number = next(_numbers)
        self._together = together
        self._parameters = connection_parameters(url, f"{name or 'flmq'} {role}")
        self._listener = listener
        self._loop = IOLoop()
        let_go_in_children(self._loop)
        self._thread = threading.Thread(target=self._run, name=f"flmq-{role}", daemon=True)
        self._opened: Future[None] = Future()
        self._patient = False
        self._backoff = Backoff()
        self._users: list[ConnectionUser] = []
        self._amqp: Any = None
        """The pika connection while there is one, open or not."""
        self._up_since: float | None = None
        self._held: set[object] = set()
        """Those whom the broker holds back."""
        self._retry: Any = None
        self._closing = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        """Held while posting and when ending: nobody posts to a loop that is closed."""

    # For any thread

    def open(self, *, patient: bool = False) -> None:
        """Connect and wait for it.

        Raises `BrokerAccessRefused` at once, and, unless ``patient``, `BrokerUnavailable`.
        """
        self._patient = patient
        self._thread.start()
        self._opened.result()

    def post(self, action: Callable[[], None]) -> None:
        """Run ``action`` soon on the connection's thread; not at all once it has ended."""
        with self._lock:
            if not self._ended.is_set():
                self._loop.add_callback_threadsafe(action)

    @property
    def is_ended(self) -> bool:
        """Whether it was closed, or never came up, and will not be made again."""
        return self._ended.is_set()

    def is_own_thread(self) -> bool:
        """Whether the caller runs on the connection's thread, and so must not wait for it."""
        return threading.current_thread() is self._thread

    def attach(self, user: ConnectionUser) -> None:
        """Let ``user`` work over the connection, at once if it is open."""

        def attach() -> None:
            self._users.append(user)
            if self._up_since is not None:
                user.connection_up(self._amqp)

        self.post(attach)

    def detach(self, user: ConnectionUser) -> None:
        """Forget ``user``."""
        self.post(lambda: self._users.remove(user) if user in self._users else None)

    def close(self) -> None:
        """Close, and wait until the thread has ended. Idempotent."""
        self.post(self._shut)
        if self._thread.is_alive() and not self.is_own_thread():
            self._thread.join(2 * _CLOSE_SECONDS)

    # For the connection's thread

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Run ``action`` on this thread later."""
        self._loop.call_later(seconds, action)

    def hold(self, who: object, reason: str) -> None:
        """Tell that the broker lets ``who`` do nothing at the moment; it goes on trying."""
        self._held.add(who)
        self._tell(ConnectionState.BLOCKED, reason)

    def release(self, who: object) -> None:
        """Tell that it does again, if it did not."""
        if who in self._held:
            self._held.discard(who)
            if not self._held:
                self._tell(ConnectionState.CONNECTED, "no longer held back")

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

    def follow(self) -> None:
        """Try now, if it waits: for any thread (`Together`)."""
        self.post(self._follow)

    def _follow(self) -> None:
        if self._retry is not None and not self._closing:
            self._loop.remove_timeout(self._retry)
            self._attempt()

    def _attempt_if_first(self) -> None:
        if self._together.leads(self):
            self._attempt()
        else:
            self._retry = self._loop.call_later(current_pace().longest, self._attempt_if_first)

    def _attempt(self) -> None:
        self._retry = None
        self._amqp = ReadingConnection(
            self._parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
            custom_ioloop=self._loop,
        )

    def _on_open(self, connection: Any) -> None:
        self._up_since = time.monotonic()
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._tell(ConnectionState.CONNECTED)
        for user in list(self._users):
            user.connection_up(connection)
        if not self._opened.done():
            self._opened.set_result(None)
        self._together.arrived(self)

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
        self._held.clear()
        up_since, self._up_since = self._up_since, None
        problem = translate(error, self.url)
        for user in list(self._users):
            user.connection_lost(problem)
        if self._closing:
            self._end(problem)
            return
        if up_since is not None and time.monotonic() - up_since > current_pace().healthy:
            self._backoff.reset()
        self._try_again(problem)

    def _try_again(self, problem: BrokerError) -> None:
        if isinstance(problem, BrokerAccessRefused):
            seconds = current_pace().refused
        elif isinstance(problem, TooManyConnections):
            seconds = self._backoff.next(current_pace().crowded)
        else:
            seconds = self._backoff.next()
        self._together.wait(self)
        self._retry = self._loop.call_later(seconds, self._attempt_if_first)
        self._tell(ConnectionState.LOST, f"{problem}; next try in {seconds:.1f} s")

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self._tell(
            ConnectionState.BLOCKED, f"RabbitMQ holds publishers back: {frame.method.reason}"
        )

    def _on_unblocked(self, *_: Any) -> None:
        self._tell(ConnectionState.CONNECTED, "no longer blocked")

    def _shut(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._amqp is None:
            if self._retry is not None:
                self._loop.remove_timeout(self._retry)
            self._end(TransportClosed("closed while it was lost"))
            return
        self._loop.call_later(_CLOSE_SECONDS, self._abort)
        if not self._amqp.is_closing:
            self._amqp.close()

    def _abort(self) -> None:
        """Close the socket without asking the peer, who may be gone."""
        error = pika.exceptions.StreamLostError("closed without an answer from the broker")
        # pika offers no other way than to wait; before there is a stream its own timeout ends it.
        if self._amqp is not None and getattr(self._amqp, "_transport", None) is not None:
            self._amqp._terminate_stream(error)

    def _end(self, problem: BrokerError) -> None:
        self._together.leave(self)
        with self._lock:
            self._ended.set()
        self._loop.stop()
        if not self._opened.done():
            self._opened.set_exception(problem)
        else:
            self._tell(ConnectionState.CLOSED)

    def _tell(self, state: ConnectionState, detail: str = "") -> None:
        if self._listener is None:
            return
        try:
            self._listener(ConnectionEvent(self._role, state, detail, self._number))
        except BaseException:  # a listener's mistake must not cost the connection
            _log.exception("the listener of the %s connection failed", self._role)
