"""A broker with TLS and logins by client certificate, and the certificates for it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.management import Management
from flmq.broker.node import PrivateNode
from flmq.broker.tls import NodeTls
from flmq.certs.folder import CertificateFiles, CertsFolder, FileStands
from flmq.common.urls import BrokerUrl, parse_broker_url

DAYS = 30


@dataclass(frozen=True)
class SecureNode:
    """A node that takes clients by certificate on its TLS port, by password on its plain one.

    Clients without a certificate are refused on the TLS port.
    """

    node: PrivateNode
    certs: CertsFolder

    @property
    def management(self) -> Management:
        return self.node.management

    @property
    def cafile(self) -> Path:
        return self.certs.authority.certificate

    def files(self, user: str) -> CertificateFiles:
        """The certificate of ``user``, made at the first call."""
        with contextlib.suppress(FileStands):
            self.certs.client(user, DAYS)
        return self.certs.files_of_client(user)

    def url(self, user: str, vhost: str) -> str:
        """URL for ``user``, who logs in by certificate; the user itself must be made elsewhere."""
        files = self.files(user)
        address = parse_broker_url(self.node.tls_url)
        options = {
            "auth": "external",
            "cafile": self.cafile,
            "certfile": files.certificate,
            "keyfile": files.key,
        }
        query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in options.items())
        return (
            f"amqps://{quote(user, safe='')}@{address.host}:{address.port}/"
            f"{quote(vhost, safe='')}?{query}"
        )

    def password_url(self, user: str, password: str, vhost: str) -> BrokerUrl:
        """Address for ``user`` on the plain port, by password."""
        address = parse_broker_url(self.node.url)
        return replace(address, user=user, password=password, vhost=vhost)

    @contextlib.contextmanager
    def vhost(self) -> Iterator[str]:
        """A fresh virtual host that the node's own user administers, deleted afterwards."""
        name = f"test-{secrets.token_hex(6)}"
        self.management.add_vhost(name)
        yield name
        self.management.delete_vhost(name)

    def add_user(self, user: str, vhost: str) -> None:
        """Make ``user``, without a password and with all permissions on ``vhost``."""
        name = quote(user, safe="")
        self.management.call("PUT", f"/api/users/{name}", {"password_hash": "", "tags": ""})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        path = f"/api/permissions/{quote(vhost, safe='')}/{name}"
        self.management.call("PUT", path, everything)


@contextlib.contextmanager
def secure_node_in(folder: Path, *, client_certs: bool = True) -> Iterator[SecureNode]:
    """Start one, with its certificates, in ``folder``; stop it afterwards."""
    certs = CertsFolder(folder / "certs")
    authority = certs.init("flmq test authority", DAYS)
    server = certs.server(["localhost", "127.0.0.1"], DAYS)
    tls = NodeTls(server.certificate, server.key, authority.certificate, client_certs=client_certs)
    node = PrivateNode(folder / "node", plugins=(MANAGEMENT_PLUGIN,), tls=tls)
    with node:
        yield SecureNode(node, certs)
