"""The whole way: a file, `flmq provision`, commands with passwords, kills, and the same bits."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flmq.common import ndarrays_to_parameters
from flmq.common.crashpoints import CRASH_AT
from tests.conftest import SessionBroker
from tests.end_to_end.federation import JOB
from tests.processes import environment, start
from tests.security.hosts import RabbitMQHost
from tests.security.killed_app import ROUNDS, SIZE
from tests.security.test_provisioned import plain_model
from tests.transport.rigs import PATIENCE

ROOT = Path(__file__).parents[2]
APP = "tests.security.killed_app"
SERVER_DIES = ("server.tasks_published:1", "server.round_aggregated:2", "")
CLIENT_DIES = ("worker.before_training", "worker.reply_announced", "worker.reply_confirmed")


class ByCommand(RabbitMQHost):
    """A virtual host that the command line makes."""

    def provision(self) -> None:
        given = ["provision", "--file", self.file, "--passwords", self.file.parent / "passwords"]
        subprocess.run(
            [sys.executable, "-m", "flmq", *map(str, given), "--yes"],
            cwd=self.file.parent,
            env=environment("amqp://nobody") | self.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=4 * PATIENCE,
        )


@pytest.mark.slow
def test_killed_clients_and_servers_make_the_same_bits_where_all_is_provisioned(
    broker_node: SessionBroker, broker_url: str, tmp_path: Path
) -> None:
    host = ByCommand(broker_url, broker_node.management, tmp_path)
    users = host.users

    def as_user(user: str, **more: str) -> dict[str, str]:
        at = host.direct
        url = f"amqp://{user}@{at.host}:{at.port}/{at.vhost}"
        own = {"FLMQ_BROKER_PASSWORD_FILE": str(host.passwords.file(user)), "FLMQ_HEARTBEAT": "1"}
        return environment(url) | own | {"PYTHONPATH": str(ROOT)} | more

    def flmq(name: str, user: str, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        output = tmp_path / f"{name}.txt"
        command = [sys.executable, "-m", "flmq", *arguments]
        return start(command, output, tmp_path, as_user(user, **more))

    def client(name: str, user: str, death: str = "") -> subprocess.Popen[bytes]:
        given = ("client", f"{APP}:client", f"--client-id={user}", "--once")
        return flmq(name, user, *given, **{CRASH_AT: death})

    bob = client("bob", users.bob)
    alices, servers = [client("alice-0", users.alice, CLIENT_DIES[0])], []
    try:
        for number, death in enumerate(SERVER_DIES):
            given = ("server", f"{APP}:server", f"--job={JOB}")
            server = flmq(f"server-{number}", users.server, *given, **{CRASH_AT: death})
            servers.append(server)
            deadline = time.monotonic() + 6 * PATIENCE
            while server.poll() is None:
                assert time.monotonic() < deadline, (tmp_path / f"server-{number}.txt").read_text()
                if alices[-1].poll() == -9:
                    death_of_hers = [*CLIENT_DIES, ""][min(len(alices), len(CLIENT_DIES))]
                    alices.append(client(f"alice-{len(alices)}", users.alice, death_of_hers))
                time.sleep(0.1)
            said = (tmp_path / f"server-{number}.txt").read_text()
            assert server.returncode == (-9 if death else 0), said
        assert bob.wait(PATIENCE) == 0, (tmp_path / "bob.txt").read_text()
        assert len(alices) >= 3
    finally:
        for process in (bob, *alices, *servers):
            process.kill()
            process.wait()
        host.close()
    with np.load(tmp_path / "runs" / JOB / "model.npz") as file:
        model = b"".join(ndarrays_to_parameters([file[name] for name in file.files]).tensors)
    assert model == plain_model(users.alice, users.bob, size=SIZE, rounds=ROUNDS)
