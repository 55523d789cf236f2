"""A job that is protected from end to end, as processes: the plain run's bits, whoever dies."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.e2e.keys import Identity, save_identity
from tests.end_to_end.test_processes import CLIENTS, Processes, undisturbed
from tests.processes import open_to_others

__all__ = ["undisturbed"]


class Protected(Processes):
    """Servers and clients of `held`, with keys."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        self.keys = folder / "keys"
        for name in CLIENTS:
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
