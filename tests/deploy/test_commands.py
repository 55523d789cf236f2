"""The commands of compose, of the units and of the pods, run on the broker that deploy/ has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import Site
from tests.deploy.shipped import DEPLOY, Command, of_compose, of_pod, of_unit
from tests.docs.pages import ROOT
from tests.processes import BIN, start


class Running:
    """Commands, each as a process with nothing of ours in its environment but the way to flmq."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._site = site
        self._folder = folder

    def run(self, name: str, command: Command) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a command; the process, and the file that it writes to."""
        host = {"rabbitmq.flmq.svc:5671": "localhost", "rabbitmq:5671": "localhost"}
        env = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self._folder),
            "PYTHONPATH": str(ROOT),
            "FLMQ_HEARTBEAT": "1",
        }
        for key, value in command.env.items():
            for old, new in host.items():
                value = value.replace(old, f"{new}:{self._site.port}")
            env[key] = value
        env.pop("FLMQ_METRICS_PORT", None)  # that of a pod, and there are several here
        output = self._folder / f"{name}.log"
        argv = [sys.executable, "-P", "-m", "flmq", *command.arguments]
        return start(argv, output, self._folder, env), output


def _all_run(site: Site, folder: Path, server: Command, clients: dict[str, Command]) -> None:
    """Server and clients do a job; and SIGTERM ends the clients well before SIGKILL comes."""
    (folder / "app.py").write_bytes((site.folder / "app.py").read_bytes())
    running = Running(site, folder)
    started = {name: running.run(name, command) for name, command in clients.items()}
    process, output = running.run("server", server)
    try:
        assert process.wait(120) == 0, output.read_text() + "".join(
            log.read_text() for _, log in started.values()
        )
        for client, _ in started.values():
            assert client.poll() is None
            client.terminate()
        for name, (client, log) in started.items():
            assert client.wait(clients[name].signal_seconds) == 143, log.read_text()
            assert "Traceback" not in log.read_text()
    finally:
        for each in (process, *(client for client, _ in started.values())):
            each.kill()
            each.wait()


def test_what_compose_starts_does_a_job(site: Site, tmp_path: Path) -> None:
    clients = {name: of_compose(name, site.files) for name in ("alice", "bob")}
    _all_run(site, tmp_path, of_compose("server", site.files), clients)
    assert (tmp_path / "runs" / "line" / "model.npz").is_file()


def _credentials(site: Site, folder: Path, user: str) -> Path:
    made = folder / f"credentials-{user}"
    made.mkdir()
    (made / "password").write_bytes(site.files[user].read_bytes())
    return made


def test_what_the_units_start_does_a_job(site: Site, tmp_path: Path) -> None:
    """With the files that docs/deploy.md has one write."""

    def command(role: str, instance: str, user: str) -> Command:
        env = tmp_path / f"{role}-{instance}.env"
        url = f"amqps://{user}@localhost:{site.port}/flmq?cafile={site.files['ca']}"
        app = "app:client" if role == "client" else "app:server"
        env.write_text(f"FLMQ_BROKER_URL={url}\nFLMQ_APP={app}\nFLMQ_HEARTBEAT=1\n")
        state = tmp_path / "state"
        unit = DEPLOY / "systemd" / f"flmq-{role}@.service"
        return of_unit(unit, instance, _credentials(site, tmp_path, user), state, env)

    clients = {name: command("client", name, name) for name in ("alice", "bob")}
    _all_run(site, tmp_path, command("server", "line", "server"), clients)
    assert (tmp_path / "state" / "server-line" / "runs" / "line" / "model.npz").is_file()


def test_the_shipped_configuration_raises_no_alarm(site: Site) -> None:
    """On a disk with a gigabyte left, which a machine for tests has."""
    assert site.node.evaluate("rabbit_alarm:get_alarms().") == "[]"


@pytest.mark.parametrize(
    ("kind", "name"), [("StatefulSet", "flmq-server"), ("Deployment", "flmq-pool")]
)
def test_a_pod_has_time_for_its_grace(kind: str, name: str) -> None:
    command = of_pod(kind, name, {})
    grace = float(command.env.get("FLMQ_GRACE", "20"))
    assert command.signal_seconds >= grace + 5
