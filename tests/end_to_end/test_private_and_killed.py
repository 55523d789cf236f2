"""Private rounds over a broker, their server killed by ``kill -9``: same noise, budget and bits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from flmq.client.app import run_client
from flmq.client.options import WorkerOptions
from flmq.common import parameters_to_ndarrays
from flmq.common.crashpoints import CRASH_AT
from flmq.server.strategy.privacy.accountant import Accountant
from flmq.simulation import start_simulation
from tests.end_to_end.federation import JOB
from tests.end_to_end.private_app import CLIENTS, ROUNDS, client, server
from tests.processes import environment, start
from tests.transport.rigs import PATIENCE

APP = "tests.end_to_end.private_app:server"
DEATHS = ("server.phase_closed:1", "server.round_aggregated:2")
"""Before a round's noise is drawn; and after, when nobody has seen it yet."""


def test_a_server_that_dies_twice_ends_with_the_bits_and_the_budget_of_one_that_lives(
    broker_url: str, tmp_path: Path
) -> None:
    """The one that lives has its clients in its own process, over the transport in memory."""
    undisturbed = server()
    assert undisturbed.strategy is not None
    history = start_simulation(
        client_fn=client,
        clients_ids=CLIENTS,
        strategy=undisturbed.strategy,
        config=undisturbed.config,
    )
    shown = history.metrics_distributed_fit
    spent = Accountant(0.5, 1e-5, None)
    for _, epsilon in shown["epsilon"]:
        spent.spend(CLIENTS, len(CLIENTS))
        assert epsilon == spent.epsilon()
    assert [value for _, value in shown["num_not_clipped"]] == [0] * ROUNDS
    expected = parameters_to_ndarrays(undisturbed.strategy.global_parameters)

    model, metrics = killed(broker_url, tmp_path)
    assert model == b"".join(x.tobytes() for x in expected)
    assert metrics == [
        {name: dict(values)[number] for name, values in shown.items()}
        for number in range(1, ROUNDS + 1)
    ]


def killed(url: str, folder: Path) -> tuple[bytes, list[Any]]:
    """Run the job with a server that dies, and replay it.

    Returns:
        The model, and what each round showed of its training.
    """
    env = environment(url) | {"PYTHONPATH": str(Path(__file__).parents[2]), "FLMQ_HEARTBEAT": "1"}
    clients = [
        threading.Thread(target=run_client, args=(url, client, name, {}, WorkerOptions(once=True)))
        for name in CLIENTS
    ]
    for each in clients:
        each.start()
    for number, death in enumerate([*DEATHS, ""]):
        output = folder / f"server-{number}.txt"
        command = [sys.executable, "-m", "flmq", "server", APP, f"--job={JOB}", "--keep-replies"]
        process = start(command, output, folder, env | {CRASH_AT: death})
        try:
            assert process.wait(4 * PATIENCE) == (-9 if death else 0), output.read_text()
        finally:
            process.kill()
            process.wait()
    for each in clients:
        each.join(PATIENCE)
    done = subprocess.run(
        [sys.executable, "-m", "flmq", "runs", "replay", JOB, f"--app={APP}"],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert done.stdout.count("same bits") == ROUNDS, done.stdout + done.stderr
    left = folder / "runs" / JOB
    with np.load(left / "model.npz") as file:
        model = b"".join(file[name].tobytes() for name in file.files)
    recorded = json.loads((left / "history.json").read_text())
    return model, [each["fit_metrics"] for each in recorded["rounds"]]
