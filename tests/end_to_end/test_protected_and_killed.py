"""A job that is protected from end to end, as processes: the plain run's bits, whoever dies."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from flmq.broker.node import PrivateNode
from flmq.client.client_ids import clients_of
from flmq.e2e.keys import Identity, save_identity
from flmq.server import ServerConfig
from flmq.server.components import ServerAppComponents
from flmq.server.context import ServerContext
from flmq.server.options import RunOptions
from flmq.simulation.app import simulate
from tests.end_to_end import held
from tests.end_to_end.federation import Watch
from tests.end_to_end.test_processes import CLIENTS, ROUNDS, SLOW, Processes, undisturbed
from tests.processes import open_to_others
from tests.transport.rigs import eventually

__all__ = ["undisturbed"]

LARGE = 300_000
"""Numbers of a model that goes in chunks, as do its replies."""
_OLD_ENOUGH = 3.0
"""Seconds after which RabbitMQ 3.10 keeps a quorum queue that a kill finds."""


class Protected(Processes):
    """Servers and clients of `held`, with keys."""

    def __init__(self, url: str, folder: Path, clients: Sequence[str] = CLIENTS) -> None:
        super().__init__(url, folder)
        self.keys = folder / "keys"
        for name in clients:
            save_identity(Identity.new(name), self.keys / "clients")
        save_identity(Identity.new("server"), self.keys)

    def client(self, client_id: str, *options: str) -> subprocess.Popen[bytes]:
        return super().client(
            client_id,
            "--e2e",
            f"--key={self.keys / 'clients' / client_id}.key",
            f"--server-key={self.keys / 'server.pub'}",
            *options,
        )

    def clients(self, ids: str, *options: str) -> subprocess.Popen[bytes]:
        """Start many of one command."""
        return self.run(
            *("client", "tests.end_to_end.held:client", f"--client-ids={ids}", "--e2e"),
            *(f"--key={self.keys / 'clients'}", f"--server-key={self.keys / 'server.pub'}"),
            *options,
        )

    def server(self, job: str, *options: str) -> subprocess.Popen[bytes]:
        keys = (f"--keys={self.keys / 'server.key'}", f"--trust={self.keys / 'clients'}")
        return super().server(job, "--e2e", *keys, *options)


@pytest.fixture
def protected(broker_url: str, tmp_path: Path) -> Iterator[Protected]:
    made = Protected(broker_url, tmp_path)
    yield made
    made.end()


def _killed(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_server_and_clients_are_killed_in_mid_round_and_no_bit_changes(
    protected: Protected, undisturbed: bytes
) -> None:
    """A server that is started again has the keys of its run, and its clients know them."""
    release = {name: protected.hold(name, 2) for name in CLIENTS}
    options = {"a": ("--once", f"--state-dir={protected.folder / 'state'}"), "b": ("--once",)}
    first = {name: protected.client(name, *options[name]) for name in CLIENTS}
    server = protected.server("job")
    for name in CLIENTS:
        protected.wait_for_training(name, 2, first[name].pid)
    _killed(server)
    _killed(first["a"])
    server = protected.server("job")
    second = protected.client("a", *options["a"])
    protected.wait_for_training("a", 2, second.pid)
    for each in release.values():
        each.unlink()
    said = protected.ends(server)
    assert "end to end: signed by server (" in said
    assert protected.model("job") == undisturbed
    assert protected.trainings("b", 2) == {first["b"].pid}
    protected.ends(second)
    protected.ends(first["b"])
    assert open_to_others(protected.folder / "runs" / "job" / "journal.db") == []


def test_a_job_is_not_gone_on_with_under_other_keys_unasked(protected: Protected) -> None:
    release = protected.hold("a", 1)
    clients = [protected.client(name, "--once") for name in CLIENTS]
    server = protected.server("job")
    protected.wait_for_training("a", 1, clients[0].pid)
    _killed(server)
    said = protected.ends(Processes.server(protected, "job"), 2)
    assert "was begun differently (end to end: was " in said
    assert ", is nothing)" in said
    release.unlink()
    protected.ends(protected.server("job"))


def plain(clients: Sequence[str], size: int = 100) -> bytes:
    """The model of a run in the clear that nobody disturbs."""
    watch = Watch()
    context = ServerContext("job", {"clients": len(clients), "size": size})
    parts = ServerAppComponents(strategy=held.server(context), config=ServerConfig(ROUNDS))
    options = RunOptions(job="job", observers=(watch,))
    simulate(held.client, clients_of(clients, {}), parts, options, keep_clients=True)
    return bytes(np.load(io.BytesIO(watch.model())).tobytes())


def test_the_broker_is_killed_in_mid_round_and_no_bit_changes(
    private_node: PrivateNode, tmp_path: Path
) -> None:
    """Two replies in chunks are finished while it is away; one client has a folder, one has not."""
    protected = Protected(private_node.url, tmp_path)
    try:
        release = {name: protected.hold(name, 2) for name in CLIENTS}
        options = {"a": ("--once", f"--state-dir={tmp_path / 'state'}"), "b": ("--once",)}
        clients = {name: protected.client(name, *options[name]) for name in CLIENTS}
        server = protected.server("job", f"--config=size={LARGE}")
        for name in CLIENTS:
            protected.wait_for_training(name, 2, clients[name].pid)
        time.sleep(_OLD_ENOUGH)
        private_node.kill()
        for each in release.values():
            each.unlink()
        for process in (server, *clients.values()):
            eventually(lambda p=process: "connection lost" in protected.output(p), SLOW)  # type: ignore[misc]
        private_node.start()
        protected.ends(server)
        assert protected.model("job") == plain(CLIENTS, LARGE)
        for name in CLIENTS:
            said = protected.ends(clients[name])
            assert "Traceback" not in said
            assert "flmq.dead" not in said
            assert len(protected.trainings(name, 3)) == 1
    finally:
        protected.end()


@pytest.mark.slow
def test_many_clients_of_several_processes_and_one_of_these_is_killed(
    broker_url: str, tmp_path: Path
) -> None:
    """Each process has the keys of its own clients."""
    ids = [f"c-{number}" for number in range(4)]
    protected = Protected(broker_url, tmp_path, ids)
    try:
        release = protected.hold("c-1", 2)
        parent = protected.clients("c-{0..3}", "--processes=2", "--once", "--state-dir=state")
        server = protected.server("job", f"--config=clients={len(ids)}")
        eventually(lambda: bool(protected.trainings("c-1", 2)), SLOW)
        [victim] = protected.trainings("c-1", 2)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: "ended by signal 9" in protected.output(parent), SLOW)
        again = protected.clients(
            "c-{0..3}", "--processes=1", "--share=2/2", "--once", "--state-dir=state"
        )
        protected.wait_for_training("c-1", 2, again.pid)
        release.unlink()
        protected.ends(server)
        assert protected.model("job") == plain(ids)
        protected.ends(again)
    finally:
        protected.end()
