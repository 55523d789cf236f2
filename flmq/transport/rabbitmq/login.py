"""Log in: read the credentials for each connection, and renew a token while it is open.

RabbitMQ closes a connection, or refuses what is done on it, once the token is expired that it was
opened with; a client may send a newer one before that (``connection.update-secret``,
https://www.rabbitmq.com/docs/oauth2#token-expiration).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import pika

from flmq.common.credentials import Login, check_login, login_of
from flmq.common.errors import BrokerAccessRefused, BrokerError, FlmqError
from flmq.common.logger import get_logger
from flmq.common.urls import BrokerUrl
from flmq.transport.rabbitmq.parameters import connection_parameters

__all__ = ["ConnectionLogin"]

_log = get_logger(__name__)

_RENEW_AT = 0.7
"""The part of a token's remaining life after which a newer one is asked for."""
_LATE_AT = 0.9
"""The part after which it is worth a word that there is none yet."""
_SHORTEST, _LONGEST = 1.0, 30.0
"""Seconds between two tries to get a newer one."""


class _Thread(Protocol):
    """What we need of a connection and its thread."""

    def post(self, action: Callable[[], None]) -> None: ...

    def call_later(self, seconds: float, action: Callable[[], None]) -> None: ...


class ConnectionLogin:
    """The login of one connection, as one of its users. For its thread only."""

    def __init__(
        self,
        url: BrokerUrl,
        name: str,
        thread: _Thread,
        *,
        read: Callable[[BrokerUrl], Login] = login_of,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Check the URL's options; read no secret yet.

        RabbitMQ's tools show ``name``. ``clock`` gives seconds since the epoch, as tokens do.

        Raises:
            UsageError: they contradict each other.
        """
        check_login(url)
        self._url = url
        self._name = name
        self._thread = thread
        self._read = read
        self._clock = clock
        self._login: Login | None = None
        self._began = 0.0
        self._amqp: Any = None
        self._told = False
        """Whether it was said that there is no newer token."""

    def parameters(self) -> pika.ConnectionParameters:
        """Read the credentials and certificates as they are now. May block for some seconds.

        Raises:
            BrokerAccessRefused: they cannot be had.
        """
        try:
            login = self._read(self._url)
            parameters = connection_parameters(self._url, login, self._name)
        except BrokerError:
            raise
        except FlmqError as error:
            # It was usable when the transport was made.
            raise BrokerAccessRefused(str(error)) from error
        self._take(login)
        return parameters

    def connection_up(self, connection: Any) -> None:
        """Renew the token from now on, if it says when it expires."""
        self._amqp = connection
        if (expires := self._expires) is not None:
            self._again_in(max(_SHORTEST, (expires - self._began) * _RENEW_AT))

    def connection_lost(self, problem: BrokerError) -> None:
        """Renew no more: the next connection reads anew."""
        self._amqp = None

    @property
    def _expires(self) -> float | None:
        return None if self._login is None else self._login.expires

    def _take(self, login: Login) -> None:
        self._login = login
        self._began = self._clock()
        self._told = False

    def _again_in(self, seconds: float) -> None:
        self._thread.call_later(seconds, partial(self._ask, self._amqp))

    def _ask(self, connection: Any) -> None:
        """Read beside the connection's thread, which must go on serving the connection."""
        if connection is not self._amqp:
            return  # another connection has come since

        def read() -> None:
            try:
                found: Login | FlmqError = self._read(self._url)
            except FlmqError as error:
                found = error
            self._thread.post(partial(self._answered, connection, found))

        threading.Thread(target=read, name="flmq-token", daemon=True).start()

    def _answered(self, connection: Any, found: Login | FlmqError) -> None:
        if connection is not self._amqp or not connection.is_open or self._login is None:
            return
        if isinstance(found, FlmqError):
            self._complain(str(found))
        elif found.secret == self._login.secret:
            if self._spent >= _LATE_AT:
                self._complain("there is no newer one yet")
        else:
            connection.update_secret(found.secret, "renewed before it expires")
            _log.debug("a newer token of user %s was sent to the broker", found.user)
            self._take(found)
            self.connection_up(connection)
            return
        left = (self._expires or 0.0) - self._clock()
        self._again_in(min(_LONGEST, max(_SHORTEST, left / 10)))

    @property
    def _spent(self) -> float:
        """The part of the token's life that is over."""
        life = (self._expires or 0.0) - self._began
        return (self._clock() - self._began) / life if life > 0 else 1.0

    def _complain(self, reason: str) -> None:
        """Say once for each token that it cannot be renewed."""
        if self._told or self._login is None:
            return
        self._told = True
        left = (self._expires or 0.0) - self._clock()
        ends = f"ends in {left:.0f} s" if left > 0 else "has ended"
        _log.warning(
            "the token of user %s for the broker at %s:%s %s and cannot be renewed (%s): it is "
            "tried again until then and after",
            self._login.user,
            self._url.host,
            self._url.port,
            ends,
            reason,
        )
