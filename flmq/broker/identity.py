"""The identity of a private node: name, secrets and ports, kept in its folder between starts.

RabbitMQ names its data after the node and creates its first user only in an empty database, so a
node that is to find its data again must start with the same identity.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from flmq.broker.ports import LOOPBACK, NodePorts, free_ports
from flmq.common.errors import StoredDataError
from flmq.common.urls import BrokerUrl

__all__ = ["NodeIdentity", "write_private"]

_FILE = "identity.json"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Name, secrets and ports of a node. Nodes of a cluster share ``cookie`` and epmd's port."""

    name: str
    ports: NodePorts
    cookie: str = field(repr=False)
    password: str = field(repr=False)
    user: str = "flmq"
    vhost: str = "flmq"

    @property
    def url(self) -> BrokerUrl:
        """The broker URL, including the login."""
        return BrokerUrl(LOOPBACK, self.ports.amqp, self.vhost, self.user, self.password)

    def without_secrets(self, text: str) -> str:
        """Return ``text`` with password and cookie replaced by asterisks."""
        for secret in (self.password, self.cookie):
            text = text.replace(secret, "***")
        return text

    def save(self, folder: Path) -> None:
        """Write the identity into ``folder``, readable by its owner alone."""
        write_private(folder / _FILE, json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def load_identity(folder: Path) -> NodeIdentity | None:
    """Read the identity kept in ``folder``; None if there is none.

    Raises:
        StoredDataError: the file exists but cannot be read.
    """
    file = folder / _FILE
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        # A node that an earlier flmq made has no port for TLS yet.
        ports = NodePorts(**{"amqps": free_ports().amqps, **fields["ports"]})
        return NodeIdentity(**{**fields, "ports": ports})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise StoredDataError(
            f"{file} is damaged ({type(error).__name__}): delete the folder {folder} "
            "to begin with an empty broker"
        ) from error


def new_identity() -> NodeIdentity:
    """Return a new random identity that does not collide with others on this machine."""
    return NodeIdentity(
        name=f"flmq-{secrets.token_hex(4)}@localhost",
        ports=free_ports(),
        cookie=secrets.token_hex(16),
        password=secrets.token_urlsafe(24),
    )


def write_private(file: Path, text: str) -> None:
    """Write ``text`` to ``file`` atomically, readable by its owner alone."""
    draft = file.with_name(file.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    draft.replace(file)
