"""A small client of RabbitMQ's management HTTP API, for virtual hosts and permissions.

A call takes some 15 ms, where ``rabbitmqctl`` starts an Erlang machine each time (0.4 s and up).
See https://www.rabbitmq.com/docs/http-api-reference.
"""

from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from flmq.common.errors import BrokerAccessRefused, BrokerRefusal, BrokerUnavailable
from flmq.common.urls import BrokerUrl

__all__ = ["MANAGEMENT_PORT", "Management", "management_of"]

MANAGEMENT_PORT = 15672
"""Where the API is unless somebody has moved it."""


@dataclass(frozen=True, slots=True)
class Management:
    """The management API of one broker, at ``host``:``port``, as one user."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    timeout: float = 10.0
    """Seconds for a call."""

    def add_vhost(self, vhost: str) -> None:
        """Create virtual host ``vhost`` and give this user all permissions on it."""
        name = quote(vhost, safe="")
        self.call("PUT", f"/api/vhosts/{name}")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.call("PUT", f"/api/permissions/{name}/{quote(self.user, safe='')}", everything)

    def delete_vhost(self, vhost: str) -> None:
        """Delete ``vhost`` with all it holds, and close its connections."""
        self.call("DELETE", f"/api/vhosts/{quote(vhost, safe='')}")

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Make one call; return the decoded answer, None where it is empty.

        Raises `BrokerUnavailable` (nobody answers), `BrokerAccessRefused` (401, 403) and
        `BrokerRefusal` (any other refusal).
        """
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else "", headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BrokerUnavailable(
                f"no management API answers at http://{self.host}:{self.port} ({error}): is the "
                "plugin enabled (rabbitmq-plugins enable rabbitmq_management)?"
            ) from error
        finally:
            connection.close()
        if response.status in (401, 403):
            raise BrokerAccessRefused(
                f"the management API at http://{self.host}:{self.port} refuses user {self.user!r}: "
                "it wants a user with the tag administrator"
            )
        if response.status >= 400:
            said = answer.decode("utf-8", "replace")[:300]
            raise BrokerRefusal(f"{method} {path} was refused ({response.status}): {said}")
        return json.loads(answer) if answer else None


def management_of(
    address: BrokerUrl, url: str | None = None, *, timeout: float = 10.0
) -> Management:
    """Return the API of the broker at ``address``, for the same user.

    It is where ``url`` says (``http://host:port``), else on the broker's host at the usual port.
    """
    parts = urlsplit(url or "")
    host, port = parts.hostname or address.host, parts.port or MANAGEMENT_PORT
    return Management(host, port, address.user, address.password, timeout)
