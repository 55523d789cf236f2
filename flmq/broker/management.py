"""A small client of RabbitMQ's management HTTP API: virtual hosts, permissions, sites' links.

A call takes some 15 ms, whereas ``rabbitmqctl`` starts an Erlang VM each time (0.4 s and up), and
reaches another machine's broker only with its cookie. See
https://www.rabbitmq.com/docs/http-api-reference.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from flmq.common.credentials import login_of
from flmq.common.errors import BrokerAccessRefused, BrokerRefusal, BrokerUnavailable
from flmq.common.urloptions import tls_context
from flmq.common.urls import BrokerUrl, InvalidBrokerUrl

__all__ = ["MANAGEMENT_PORT", "Management", "NoSuchThing", "management_of"]

MANAGEMENT_PORT = 15672
"""The API's default port."""
_MANAGEMENT_TLS_PORT = 15671


class NoSuchThing(BrokerRefusal):
    """The broker has no such thing (status 404): an object, or a plugin's part of the API."""


@dataclass(frozen=True, slots=True)
class Management:
    """The management API of one broker, at ``host``:``port``, as one user."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    timeout: float = 10.0
    """Timeout of a call in seconds."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """How to check the server's certificate; None: no TLS."""

    @property
    def shown_url(self) -> str:
        """Where the API is, without a login."""
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}"

    def patient(self, timeout: float) -> Self:
        """Return the same API, with a ``timeout`` of so many seconds."""
        return replace(self, timeout=timeout)

    def add_vhost(self, vhost: str) -> None:
        """Create virtual host ``vhost`` and give this user all permissions on it."""
        name = quote(vhost, safe="")
        self.call("PUT", f"/api/vhosts/{name}")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.call("PUT", f"/api/permissions/{name}/{quote(self.user, safe='')}", everything)

    def delete_vhost(self, vhost: str) -> None:
        """Delete ``vhost`` and everything in it, and close its connections."""
        self.call("DELETE", f"/api/vhosts/{quote(vhost, safe='')}")

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Make one call; return the decoded answer, or None if it is empty.

        Raises:
            BrokerUnavailable: no answer.
            BrokerAccessRefused: status 401 or 403.
            NoSuchThing: status 404.
            BrokerRefusal: any other error status.
        """
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        connection = self._connection()
        try:
            connection.request(method, path, json.dumps(body) if body is not None else "", headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            # UnicodeError: the host's name is none.
            raise BrokerUnavailable(
                f"no management API answers at {self.shown_url} ({error}): is the "
                "plugin enabled (rabbitmq-plugins enable rabbitmq_management)?"
            ) from error
        finally:
            connection.close()
        if response.status in (401, 403):
            raise BrokerAccessRefused(
                f"the management API at {self.shown_url} refuses user {self.user!r}: "
                "it wants a user with the tag administrator, or for links between sites with the "
                "tags policymaker and monitoring"
            )
        if response.status >= 400:
            said = answer.decode("utf-8", "replace")[:300]
            refusal = NoSuchThing if response.status == 404 else BrokerRefusal
            raise refusal(f"{method} {path} was refused ({response.status}): {said}")
        try:
            return json.loads(answer) if answer else None
        except ValueError:
            raise BrokerRefusal(
                f"what answers at {self.shown_url} is no management API: it sends no JSON"
            ) from None

    def time(self) -> float | None:
        """Return the broker's time in Unix seconds, whole ones; None if it does not tell it.

        Raises:
            BrokerUnavailable: no answer.
        """
        connection = self._connection()
        try:
            connection.request("GET", "/api/")
            said = connection.getresponse().headers.get("Date")
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            raise BrokerUnavailable(
                f"no management API answers at {self.shown_url} ({error})"
            ) from error
        finally:
            connection.close()
        try:
            return None if said is None else parsedate_to_datetime(said).timestamp()
        except ValueError:
            return None

    def _connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        return http.client.HTTPSConnection(
            self.host, self.port, timeout=self.timeout, context=self.tls
        )


def management_of(
    address: BrokerUrl, url: str | None = None, *, timeout: float = 10.0
) -> Management:
    """Return the API of the broker at ``address``, for the same user unless ``url`` names one.

    It is at ``url`` (``http://host:port``, ``https://user:password@host:port``) if given, else on
    the broker's host at the default port, by TLS if the broker is reached so. ``timeout`` is in
    seconds.
    """
    parts = urlsplit(url or "")
    tls = parts.scheme == "https" if url else address.tls
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
    else:
        user, password = _login(address)
    return Management(
        parts.hostname or address.host,
        parts.port or (_MANAGEMENT_TLS_PORT if tls else MANAGEMENT_PORT),
        user,
        password,
        timeout,
        tls_context(replace(address, tls=True)) if tls else None,
    )


def _login(address: BrokerUrl) -> tuple[str, str]:
    try:
        login = login_of(address)
    except InvalidBrokerUrl:
        return address.user, address.password  # without one, the API says what it wants
    return login.user, login.secret
