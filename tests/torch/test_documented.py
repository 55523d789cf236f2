"""The programs of docs/torch.md and examples/pytorch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from flmq.common import ndarrays_to_parameters
from flmq.server import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.simulation import start_simulation
from tests.docs.pages import ROOT, program
from tests.processes import environment, run_together

PAGE = ROOT / "docs" / "torch.md"
EXAMPLE = ROOT / "examples" / "pytorch"


def load(name: str) -> dict[str, Any]:
    module: dict[str, Any] = {"__name__": "page"}
    exec(compile(program(PAGE, name), name, "exec"), module)
    return module


def test_the_client() -> None:
    strategy = FedAvg()
    history = start_simulation(
        client_fn=load("digits.py")["client"],
        num_clients=2,
        strategy=strategy,
        config=ServerConfig(num_rounds=2),
    )
    assert len(history.losses_distributed) == 2
    assert strategy.global_parameters.names[-2:] == ("2.weight", "2.bias")


def test_adapters_alone() -> None:
    page = load("adapters.py")
    parts = page["server"](None)
    start_simulation(
        client_fn=page["client"],
        num_clients=2,
        strategy=parts.strategy,
        config=parts.config,
        client_manager=None,
    )
    model = parts.strategy.global_parameters
    assert model.names == ("lora_a", "lora_b")
    zeros = ndarrays_to_parameters([np.zeros((10, 4), np.float32)])
    assert bytes(model.tensors[1]) != zeros.tensors[0]


def test_the_example(broker_url: str, tmp_path: Path) -> None:
    """Two processes train the network, over RabbitMQ."""

    def client(client_id: str, partition: int) -> list[str]:
        return [
            *["flmq", "client", "client:client", "--client-id", client_id, "--once"],
            *["--property", f"partition={partition}"],
        ]

    for file in EXAMPLE.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    server, *_ = run_together(
        [["flmq", "server", "server:server", "--job", "torch"], client("a", 0), client("b", 1)],
        tmp_path,
        {**environment(broker_url), "OMP_NUM_THREADS": "1"},
        timeout=240,  # importing torch takes long where much else goes on
    )
    accuracy = re.findall(r"accuracy=([0-9.]+)", server)
    assert float(accuracy[-1]) > 0.9, server
