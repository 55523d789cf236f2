"""Servers and clients show themselves at a port, as operators see them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.broker.ports import is_free
from tests.monitoring.scraping import Scrape, get, scrape, until
from tests.processes import Commands

_PATIENCE = 60.0

APP = """
import pathlib, time

import numpy as np

from flmq.client import NumPyClient
from flmq.common import ndarrays_to_parameters
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.strategy import FedAvg


class Adds(NumPyClient):
    def fit(self, parameters, config):
        while pathlib.Path("hold").exists():
            time.sleep(0.02)
        return [parameters[0] + 1], 10, {}

    def evaluate(self, parameters, config):
        return float(parameters[0][0]), 10, {}


def client(context):
    return Adds()


def server(context):
    strategy = FedAvg(
        initial_parameters=ndarrays_to_parameters([np.zeros(1000)]),
        min_fit_clients=2, min_evaluate_clients=2, min_available_clients=2,
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=3))
"""


@pytest.fixture
def commands(broker_url: str, tmp_path: Path) -> Iterator[Commands]:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    made = Commands(broker_url, tmp_path, FLMQ_METRICS_PORT="0", FLMQ_LOG_FORMAT="json")
    yield made
    made.end()


def where(commands: Commands, process: subprocess.Popen[bytes], log: Path | None = None) -> str:
    """The address that a process says."""

    def said() -> str:
        text = commands.output(process)
        if log is not None and log.exists():
            text += log.read_text(encoding="utf-8")
        found = re.search(r"metrics are at (http://\S+)/metrics", text)
        return found.group(1) if found else ""

    until(lambda: bool(said()), f"no address in {commands.outputs()}")
    return said()


def test_a_federation_is_seen_from_its_start_to_its_end(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    server = commands.run("server", "app:server", "--job=seen")
    base = where(commands, server, tmp_path / "runs" / "seen" / "server.log")
    clients = [
        commands.run("client", "app:client", f"--client-id={name}", "--state-dir=state")
        for name in ("ann", "ben")
    ]
    bases = [where(commands, client) for client in clients]

    # While the clients train: who is there, what is at work.
    until(lambda: scrape(base).value("flmq_tasks_awaited") == 2, commands.outputs())
    until(lambda: get(f"{base}/readyz") == (200, "ready\n"), "the server is not ready")
    assert get(f"{base}/healthz") == (200, "alive\n")
    seen = scrape(base)
    assert seen.value("flmq_clients", state="online") == 2
    assert seen.value("flmq_round") == 1
    assert seen.value("flmq_rounds_planned") == 3
    assert seen.value("flmq_run_state", state="running") == 1
    assert seen.value("flmq_connection_up") == 1
    assert seen.value("flmq_epoch") > 1.6e12
    assert seen.value("flmq_run_resumed") == 0
    assert seen.value("flmq_journal_bytes") > 0
    assert seen.labels("flmq_run_info") == [{"job": "seen", "strategy": "FedAvg"}]
    (build,) = seen.labels("flmq_build_info")
    assert build["role"] == "server"
    ready = {each["queue"] for each in seen.labels("flmq_queue_messages_ready")}
    assert ready == {"replies", "uploads", "presence"}
    for each in bases:
        until(lambda: scrape(each).value("flmq_worker_tasks_at_work") == 1, each)  # noqa: B023
        assert get(f"{each}/readyz") == (200, "ready\n")
        assert get(f"{each}/healthz") == (200, "alive\n")
        seen = scrape(each)
        assert seen.value("flmq_worker_clients") == 1
        assert seen.value("flmq_worker_tasks_open") == 1
        assert seen.value("flmq_worker_spool_bytes") > 0

    # The server stops in order, and another goes on with its job.
    server.send_signal(signal.SIGTERM)
    assert server.wait(_PATIENCE) == 143
    with pytest.raises(OSError, match="refused"):
        get(f"{base}/healthz")
    server = commands.run("server", "app:server", "--job=seen", "--runs-dir=runs")
    log = tmp_path / "runs" / "seen" / "server.log"
    until(lambda: len(set(re.findall(r"http://\S+/metrics", log.read_text()))) > 1, "no port")
    base = re.findall(r"(http://\S+)/metrics", log.read_text())[-1]
    until(lambda: scrape(base).value("flmq_tasks_awaited") == 2, commands.outputs())
    assert scrape(base).value("flmq_run_resumed") == 1

    last: list[Scrape] = []
    (tmp_path / "hold").unlink()
    until(lambda: all(done(each) >= 6 for each in bases), commands.outputs())
    for each in bases:
        until(lambda: receipts(each) == 6, each)  # noqa: B023
        last.append(scrape(each))
    assert server.wait(_PATIENCE) == 0
    for seen in last:
        assert seen.value("flmq_worker_tasks_done_total", phase="fit", result="ok") == 3
        assert seen.value("flmq_worker_tasks_done_total", phase="evaluate", result="ok") == 3
        assert seen.value("flmq_worker_task_duration_seconds_count", phase="fit") == 3
        assert seen.value("flmq_worker_receipts_total", outcome="accepted") == 6
        assert seen.value("flmq_worker_replies_unreceipted") == 0

    # All that anybody wrote are lines for programs, that say what they are about.
    lines = [json.loads(line) for line in commands.outputs().splitlines() if line]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    rounds = [each for each in lines if "2 of 2 answered" in each["message"]]
    assert [each["round"] for each in rounds] == [1, 2, 3]
    assert {each["job"] for each in rounds} == {"seen"}
    trained = [each for each in lines if each.get("phase") == "fit" and "task" in each]
    assert {each["client"] for each in trained} >= {"ann", "ben"}
    assert len({each["run"] for each in (*rounds, *lines) if "run" in each}) == 1
    assert all("run" in each for each in rounds)
    assert any(each["message"].startswith("stopped: job seen is not over") for each in lines)


def done(base: str) -> float:
    seen = scrape(base)
    each = seen.labels("flmq_worker_tasks_done_total")
    return sum(seen.value("flmq_worker_tasks_done_total", **labels) for labels in each)


def receipts(base: str) -> float:
    return scrape(base).value("flmq_worker_receipts_total", outcome="accepted")


def test_processes_have_a_port_each(commands: Commands) -> None:
    # Below those that Linux gives to outgoing connections, one of which may hold the second.
    port = next(each for each in range(32100, 32700) if is_free(each) and is_free(each + 1))
    many = commands.run(
        "client", "app:client", "--client-ids=c-{0..3}", "--processes=2", f"--metrics-port={port}"
    )
    for each in (port, port + 1):
        until(
            lambda: f"http://127.0.0.1:{each}/metrics" in commands.output(many),  # noqa: B023
            commands.outputs(),
        )
        base = f"http://127.0.0.1:{each}"
        until(lambda: get(f"{base}/readyz")[0] == 200, "not ready")  # noqa: B023
        assert scrape(base).value("flmq_worker_clients") == 2
