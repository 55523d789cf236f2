"""Provisioned virtual hosts for tests: who takes part, with credentials of each one's own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flmq.broker.management import Management
from flmq.common.urls import BrokerUrl
from flmq.provision.applying import carry_out, planned
from flmq.provision.passwords import Passwords
from flmq.provision.reading import read_provision
from flmq.provision.speakers import speakers_of
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

__all__ = ["SITE", "Host", "MemoryHost", "RabbitMQHost", "Users"]

SITE = "main"


class Users:
    """The users of one virtual host: their names, and the clients for whom they speak."""

    def __init__(self) -> None:
        some = secrets.token_hex(3)
        self.alice = f"alice-{some}"
        self.bob = f"lab-{some}.bob.example.org"
        self.pool = f"pool-{some}"
        self.pooled = tuple(f"device-{some}.{number}" for number in range(3))
        self.devices = json.dumps(self.pooled)
        self.server = f"server-{some}"
        self.aggregator = f"aggregator-{some}"
        self.speaks: Mapping[str, tuple[str, ...]] = {
            self.alice: (self.alice,),
            self.bob: (self.bob,),
            self.pool: self.pooled,
        }

    def make(self, admin: Transport) -> None:
        """Make what stands, where there is no `flmq provision`."""
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

    @property
    def speakers(self) -> Mapping[str, tuple[str, ...]]:
        """Who speaks for whom."""
        return {**self.users.speaks, self.users.aggregator: (f"!{SITE}",)}

    def as_user(self, user: str, listener: StateListener | None = None) -> Transport:
        """Open a transport of a user."""
        opened = MemoryTransport(self.broker, listener, user=user)
        self._opened.append(opened)
        return opened


class RabbitMQHost(RabbitMQRig):
    """On a real RabbitMQ, as `flmq provision` makes it; its own transports are the server's."""

    def __init__(self, url: str, management: Management, folder: Path) -> None:
        super().__init__(url)
        self.management = management
        self.users = Users()
        self.vhost = self.direct.vhost
        api = f"http://{management.user}:{management.password}@{management.host}:{management.port}"
        self.file = folder / "federation.toml"
        self.file.write_text(_FILE.format(**vars(self.users)))
        self.environ = {"URL": url, "API": api}
        self.passwords = Passwords(folder / "passwords")
        self.provision()

    def provision(self) -> None:
        """Make what the file says."""
        wanted = read_provision(self.file, self.environ)
        carry_out(planned(wanted, {SITE}, self.passwords), self.passwords)

    @property
    def speakers(self) -> Mapping[str, frozenset[str]]:
        """Who speaks for whom, by the file."""
        return speakers_of(self.file, self.vhost, self.environ)

    def url_of(self, user: str) -> BrokerUrl:
        """The direct URL of a user."""
        return replace(self.direct, user=user, password=self.passwords.read([user])[user])

    def _open(self, listener: StateListener | None) -> Transport:
        through = replace(self.url_of(self.users.server), host="127.0.0.1", port=self.proxy.port)
        return RabbitMQTransport(through, name="server", listener=listener)

    def as_user(self, user: str, listener: StateListener | None = None) -> Transport:
        """Open a transport of a user."""
        opened = RabbitMQTransport(self.url_of(user), name=user, listener=listener)
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        super().close()
        users = [party.user for party in read_provision(self.file, self.environ).parties]
        self.management.call("POST", "/api/users/bulk-delete", {"users": users})


_FILE = """
[[site]]
name = "main"
url = "${{URL}}"
management_url = "${{API}}"

[[client]]
ids = ["{alice}", "{bob}"]

[[client]]
ids = {devices}
user = "{pool}"

[[server]]
user = "{server}"

[[aggregator]]
user = "{aggregator}"
"""

Host = MemoryHost | RabbitMQHost
