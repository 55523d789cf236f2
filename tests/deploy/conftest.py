"""A broker as deploy/ has it: its configuration, its definitions, its certificates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flmq.broker.identity import NodeIdentity, new_identity
from flmq.broker.node import PrivateNode
from flmq.cli.main import app
from flmq.provision.passwords import password_hash
from tests.deploy.shipped import DEPLOY, compose, settings


@dataclass
class Site:
    """What `docs/deploy.md` has one make, and a node that runs on it."""

    folder: Path
    node: PrivateNode
    port: int

    @property
    def files(self) -> dict[str, Path]:
        """The secrets of compose, by name."""
        secrets = compose()["secrets"]
        return {name: self.folder / said["file"] for name, said in secrets.items()}


def make_secrets(folder: Path) -> None:
    """Run what the page says for compose; ``folder`` stands for deploy/."""
    made = folder / "secrets"
    made.mkdir(mode=0o700)
    certs = f"--dir={made / 'certs'}"
    for command in (
        ["certs", "init", certs],
        ["certs", "server", "rabbitmq", "localhost", certs],
        [
            *("provision", f"--file={DEPLOY / 'federation.toml'}", "--yes"),
            *(f"--passwords={made / 'passwords'}", f"--definitions={made / 'definitions'}"),
        ],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("deploy")
    make_secrets(folder)
    identity = new_identity()
    secrets = folder / "secrets"
    _add_user_of_node(identity, secrets / "definitions" / "main.json")
    inside = {
        "/etc/rabbitmq/ca.pem": secrets / "certs" / "ca.pem",
        "/etc/rabbitmq/server.pem": secrets / "certs" / "servers" / "rabbitmq.pem",
        "/etc/rabbitmq/server.key": secrets / "certs" / "servers" / "rabbitmq.key",
        "/etc/rabbitmq/definitions.json": secrets / "definitions" / "main.json",
    }
    shipped = {**settings("rabbitmq.conf"), **settings("rabbitmq-secure.conf")}
    shipped = {key: str(inside.get(value, value)) for key, value in shipped.items()}
    # A private node is told by its own port in the clear, on loopback, that it runs.
    assert shipped.pop("listeners.tcp") == "none"
    assert shipped.pop("listeners.ssl.default") == "5671"
    port = identity.ports.amqps
    shipped["listeners.ssl.1"] = f"127.0.0.1:{port}"
    with PrivateNode(folder / "node", identity=identity, settings=shipped) as node:
        shutil.copy(DEPLOY.parent / "examples" / "quickstart" / "app.py", folder)
        yield Site(folder, node, port)


def _add_user_of_node(identity: NodeIdentity, file: Path) -> None:
    """Add the login by which a private node is known to run: definitions leave no default user."""
    known = json.loads(file.read_text(encoding="utf-8"))
    name = identity.user
    known["users"].append(
        {
            "name": name,
            "password_hash": password_hash(identity.password),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": "",
        }
    )
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    known["permissions"].append({"user": name, "vhost": identity.vhost, **everything})
    file.write_text(json.dumps(known), encoding="utf-8")
