"""What a demo runs on: a broker, and how each process reaches it; for ``--secure``, all closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flmq.broker.find import obtain_broker
from flmq.broker.identity import write_private
from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.node import PrivateNode
from flmq.broker.tls import NodeTls
from flmq.cli.certs import certs_folder
from flmq.common.environment import BROKER_URL
from flmq.common.files import make_folder
from flmq.common.urls import parse_broker_url
from flmq.provision.applying import carry_out, planned
from flmq.provision.passwords import Passwords
from flmq.provision.reading import read_provision

if TYPE_CHECKING:
    from flmq.certs.folder import CertsFolder

__all__ = ["SERVER", "Stage", "plain_stage", "secure_stage"]

SERVER = "server"
"""Name of the server among the demo's processes."""
_DAYS = 30
"""For how many days a demo's certificates are valid."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How the demo's processes reach their broker."""

    urls: Callable[[str], str]
    """The broker's URL for a process, by its name."""
    options: Callable[[str], list[str]] = lambda _: []
    """What else its command line says, by its name."""

    def environ(self, name: str) -> Mapping[str, str]:
        """Return what the environment of the process ``name`` says."""
        return {BROKER_URL: self.urls(name)}


@contextmanager
def plain_stage(
    broker: str | None, folder: Path, clients: Sequence[str], console: Console
) -> Iterator[Stage]:
    """Find a broker, or start one; all processes reach it by one URL."""
    with obtain_broker(broker, on_step=lambda step: console.print(f"{step} ...")) as found:
        console.print(f"broker: {found.shown_url} ({found.origin.value})", soft_wrap=True)
        yield Stage(lambda _: found.url)


@contextmanager
def secure_stage(
    broker: str | None, folder: Path, clients: Sequence[str], console: Console
) -> Iterator[Stage]:
    """Start a broker that each process reaches by TLS and its own certificate, and provision it.

    Server and clients have keys, too, so that they need not trust it.

    What is kept for that, keys too, is in a folder below the run's ``folder``, and is used again by
    a run that goes on. ``broker`` is None: it must be one of its own.

    Raises:
        SecureExtraMissing: nothing here can make certificates.
        BrokerNotFound: no broker can be started.
    """
    job, folder = folder.name, folder / "secure"
    make_folder(folder)

    def tell(text: str) -> None:
        console.print(text, soft_wrap=True)

    certs = certs_folder(folder / "certs")
    tls = _certificates(certs, (SERVER, *clients))
    tell(f"certificates: {certs.path} (flmq certs)")
    keys = _keys(folder / "keys", clients)
    tell(f"keys: {folder / 'keys'} (flmq keys), for --e2e: the broker reads and forges nothing")
    tell("starting a private RabbitMQ node with TLS ...")
    with PrivateNode(plugins=(MANAGEMENT_PLUGIN,), tls=tls) as node:
        _provision(node, folder, job, clients)
        tell(f"provisioned: each process has rights of its own ({folder / 'federation.toml'})")

        def url(name: str) -> str:
            files = certs.files_of_client(name)
            options = {
                "auth": "external",
                "cafile": str(certs.authority.certificate.absolute()),
                "certfile": str(files.certificate.absolute()),
                "keyfile": str(files.key.absolute()),
            }
            own = parse_broker_url(node.tls_url)
            return replace(own, user=name, password="", options=tuple(options.items())).full

        address = parse_broker_url(node.tls_url)
        tell(f"broker: amqps://{address.host}:{address.port}/{address.vhost}, by certificate only")
        yield Stage(url, keys)


def _certificates(certs: CertsFolder, users: Sequence[str]) -> NodeTls:
    """Make the certificates that are not there yet."""
    from flmq.certs.folder import FileStands

    with suppress(FileStands):
        certs.init("flmq demo authority", _DAYS)
    with suppress(FileStands):
        certs.server(["localhost"], _DAYS)
    for user in users:
        with suppress(FileStands):
            certs.client(user, _DAYS)
    files = certs.files_of_server("localhost")
    return NodeTls(files.certificate, files.key, certs.authority.certificate, client_certs=True)


def _keys(folder: Path, clients: Sequence[str]) -> Callable[[str], list[str]]:
    """Make the keys that are not there yet; return what says to a process which are its own."""
    from flmq.e2e.keys import Identity, save_identity

    of_clients = folder / "clients"
    for name, place in ((SERVER, folder), *((each, of_clients) for each in clients)):
        if not (place / f"{name}.key").exists():
            save_identity(Identity.new(name), place)

    def options(name: str) -> list[str]:
        if name == SERVER:
            return ["--e2e", f"--keys={folder / f'{name}.key'}", f"--trust={of_clients}"]
        own, server = of_clients / f"{name}.key", folder / f"{SERVER}.pub"
        return ["--e2e", f"--key={own}", f"--server-key={server}"]

    return options


def _provision(node: PrivateNode, folder: Path, job: str, clients: Sequence[str]) -> None:
    """Write federation.toml, and make what it says, as `flmq provision` does."""
    ids = ", ".join(f'"{client_id}"' for client_id in clients)
    file = folder / "federation.toml"
    write_private(
        file,
        f"""\
[[site]]
name = "main"
url = "${{ADMIN_URL}}"
management_url = "{node.management.shown_url}"

[[client]]
ids = [{ids}]
login = "certificate"

[[server]]
user = "{SERVER}"
jobs = ["{job}"]
login = "certificate"
""",
    )
    wanted = read_provision(file, {"ADMIN_URL": node.url})
    passwords = Passwords(folder / "passwords")
    carry_out(planned(wanted, ["main"], passwords), passwords)
