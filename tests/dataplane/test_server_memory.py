"""The server's memory is a matter of the model, not of the number of clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flmq.client.serving.worker import Worker, WorkerOptions
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.end_to_end.federation import in_thread, nudge

NUMBERS = 5_000_000
"""A model of 20 MB, in eight tensors."""
ROOT = Path(__file__).parents[2]


def peak_above_idle(url: str, clients: int, folder: Path, strategy: str) -> int:
    """Bytes that a server took for rounds with so many clients, all answering at once."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    names = {f"c{number}": {} for number in range(clients)}  # type: ignore[var-annotated]
    with RabbitMQTransport(url, name="clients") as transport:
        worker = Worker(transport, nudge, names, WorkerOptions(heartbeat=1.0, threads=4))
        done = in_thread(worker.run)
        command = [sys.executable, "-m", "tests.dataplane.measured_server"]
        command += [url, str(clients), str(NUMBERS), strategy]
        server = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=120
        )
        worker.stop()
        done.result(30)
    assert server.returncode == 0, server.stderr
    measured = json.loads(server.stdout.splitlines()[-1])
    assert set(measured["accepted"]) == {clients}
    return int(measured["peak"] - measured["idle"])


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "FedMedian"])
def test_three_times_the_clients_take_the_same_memory(
    broker_url: str, tmp_path: Path, strategy: str
) -> None:
    few, many = (peak_above_idle(broker_url, clients, tmp_path, strategy) for clients in (6, 18))
    assert many == pytest.approx(few, rel=0.25)
    assert many < 18 * 4 * NUMBERS
