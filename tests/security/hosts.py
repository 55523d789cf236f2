"""Provisioned virtual hosts for tests: who takes part, with credentials of each one's own."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import quote

from flmq.broker.management import Management
from flmq.common.urls import BrokerUrl
from flmq.provision.permissions import Rights, aggregator_rights, client_rights, server_rights
from flmq.testing import MemoryTransport
from flmq.transport import StateListener, Transport
from flmq.transport.provisioned import (
    provisioned_aggregator,
    provisioned_client,
    provisioned_mark,
    provisioned_site,
)
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.transport.rigs import MemoryRig, RabbitMQRig

__all__ = ["MemoryHost", "RabbitMQHost", "Users"]

SITE = "main"


class Users:
    """The users of one virtual host: their names, and the clients for whom they speak."""

    def __init__(self) -> None:
        some = secrets.token_hex(3)
        self.alice = f"alice-{some}"
        self.bob = f"lab-{some}.bob.example.org"
        self.pool = f"pool-{some}"
        self.pooled = tuple(f"device-{some}.{number}" for number in range(3))
        self.server = f"server-{some}"
        self.aggregator = f"aggregator-{some}"
        self.speaks: Mapping[str, tuple[str, ...]] = {
            self.alice: (self.alice,),
            self.bob: (self.bob,),
            self.pool: self.pooled,
        }

    @property
    def rights(self) -> dict[str, Rights]:
        """What each may do."""
        clients = {user: client_rights(SITE, ids) for user, ids in self.speaks.items()}
        return {
            **clients,
            self.server: server_rights(["*"]),
            self.aggregator: aggregator_rights(SITE),
        }

    def make(self, admin: Transport) -> None:
        """Make what stands."""
        admin.declare(provisioned_site(SITE))
        for ids in self.speaks.values():
            for client_id in ids:
                admin.declare(provisioned_client(client_id, SITE))
        admin.declare(provisioned_aggregator(SITE))
        admin.declare(provisioned_mark())


class MemoryHost(MemoryRig):
    """On a memory broker, which checks who sends, but no permissions."""

    def __init__(self) -> None:
        super().__init__()
        self.users = Users()
        self.users.make(self.witness())

    def _open(self, listener: StateListener | None) -> Transport:
        return MemoryTransport(self.broker, listener, user=self.users.server)

    def witness(self) -> Transport:
        return self.as_user("admin")

    def as_user(self, user: str, listener: StateListener | None = None) -> Transport:
        """Open a transport of a user."""
        opened = MemoryTransport(self.broker, listener, user=user)
        self._opened.append(opened)
        return opened


class RabbitMQHost(RabbitMQRig):
    """On a real RabbitMQ; its own transports are the server's."""

    def __init__(self, url: str, management: Management) -> None:
        super().__init__(url)
        self._management = management
        self.users = Users()
        self.vhost = self.direct.vhost
        self.users.make(self.witness())
        for user, rights in self.users.rights.items():
            add_user(management, self.vhost, user, rights)

    def url_of(self, user: str) -> BrokerUrl:
        """The direct URL of a user."""
        at = self.direct
        return BrokerUrl(at.host, at.port, at.vhost, user, f"password of {user}")

    def _open(self, listener: StateListener | None) -> Transport:
        user = self.users.server
        through = BrokerUrl("127.0.0.1", self.proxy.port, self.vhost, user, f"password of {user}")
        return RabbitMQTransport(through, name="server", listener=listener)

    def as_user(self, user: str, listener: StateListener | None = None) -> Transport:
        """Open a transport of a user."""
        opened = RabbitMQTransport(self.url_of(user), name=user, listener=listener)
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        super().close()
        for user in self.users.rights:
            self._management.call("DELETE", f"/api/users/{quote(user, safe='')}")


Host = MemoryHost | RabbitMQHost


def add_user(management: Management, vhost: str, user: str, rights: Rights) -> None:
    """Make a user with these rights, and a password that is known."""
    name, where = quote(user, safe=""), quote(vhost, safe="")
    body = {"password": f"password of {user}", "tags": ""}
    management.call("PUT", f"/api/users/{name}", body)
    may = {"configure": rights.configure, "write": rights.write, "read": rights.read}
    management.call("PUT", f"/api/permissions/{where}/{name}", may)
    for topic in rights.topics:
        keys = {"exchange": topic.exchange, "write": topic.write, "read": topic.read}
        management.call("PUT", f"/api/topic-permissions/{where}/{name}", keys)
