"""One tenant on the session's broker: its file, what stands there, and who may log in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika

from flmq.common.urls import BrokerUrl
from flmq.provision.applying import Plan, carry_out, planned
from flmq.provision.parties import Provision
from flmq.provision.passwords import Passwords
from flmq.provision.plan import lines_of
from flmq.provision.reading import read_provision
from tests.conftest import SessionBroker


@dataclass
class Stage:
    """All names of users begin with ``prefix``, which is also the virtual host."""

    broker: SessionBroker
    folder: Path
    prefix: str

    @property
    def file(self) -> Path:
        return self.folder / "federation.toml"

    @property
    def environ(self) -> Mapping[str, str]:
        api = self.broker.management
        login = f"{quote(api.user, safe='')}:{quote(api.password, safe='')}"
        return {"URL": self.broker.url, "API": f"http://{login}@{api.host}:{api.port}"}

    @property
    def passwords(self) -> Passwords:
        return Passwords(self.folder / "passwords")

    def says(self, text: str) -> Provision:
        """Have the file say ``text`` of one site; ``@`` stands for the prefix of names."""
        site = '[[site]]\nname = "main"\nurl = "${URL}"\nmanagement_url = "${API}"\n'
        self.file.write_text(f'{site}vhost = "{self.prefix}"\n{text.replace("@", self.prefix)}')
        return read_provision(self.file, self.environ)

    def plan(self, wanted: Provision, sites: Collection[str] = ("main",)) -> Plan:
        return planned(wanted, sites, self.passwords)

    def apply(self, text: str) -> list[str]:
        """Make the broker as ``text`` says; return the lines of the plan."""
        wanted = self.says(text)
        plan = self.plan(wanted)
        carry_out(plan, self.passwords)
        assert self.plan(wanted).is_empty, list(lines_of(self.plan(wanted)))
        return list(lines_of(plan))

    def name(self, name: str) -> str:
        return self.prefix + name

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the management API; ``@`` stands for the prefix."""
        return self.broker.management.call(method, path.replace("@", self.prefix), body)

    def user(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/api/users/{self.name(name)}")
        return found

    def users(self) -> set[str]:
        """The users of this stage, without the prefix."""
        names = (each["name"] for each in self.call("GET", "/api/users"))
        return {name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)}

    def queues(self) -> dict[str, dict[str, Any]]:
        found = self.call("GET", "/api/definitions/@")["queues"]
        return {each["name"].replace(self.prefix, "@"): each["arguments"] for each in found}

    def bindings(self, queue: str) -> set[tuple[str, str]]:
        found = self.call("GET", "/api/definitions/@")["bindings"]
        name = queue.replace("@", self.prefix)
        return {
            (each["source"], each["routing_key"].replace(self.prefix, "@"))
            for each in found
            if each["destination"] == name and each["destination_type"] == "queue"
        }

    def password(self, name: str) -> str:
        return self.passwords.file(self.name(name)).read_text().strip()

    def url(self, name: str, password: str | None = None) -> BrokerUrl:
        address = self.broker.address.with_vhost(self.prefix)
        secret = self.password(name) if password is None else password
        return replace(address, user=self.name(name), password=secret)

    def connect(self, name: str, password: str | None = None) -> pika.BlockingConnection:
        """Log in as a user; with the password of its file unless another is given."""
        return pika.BlockingConnection(pika.URLParameters(self.url(name, password).full))

    def clear(self) -> None:
        names = [self.name(each) for each in self.users()]
        if names:
            self.call("POST", "/api/users/bulk-delete", {"users": names})
        if any(each["name"] == self.prefix for each in self.call("GET", "/api/vhosts")):
            self.broker.management.delete_vhost(self.prefix)
