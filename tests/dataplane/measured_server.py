"""A server that tells how much memory rounds took: ``python -m ... URL CLIENTS NUMBERS PROGRAM``.

PROGRAM is a strategy of flmq's, or the file of docs/strategies.md that has one and its class:
``FedMedian``, ``fedlion.py:FedLion``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import flmq.server.strategy
from flmq.common import ndarrays_to_parameters
from flmq.observe.events import RoundClosed, RunEvent
from flmq.server import start_server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import FedAvg
from tests.docs.pages import ROOT, program


def _status(field: str) -> int:
    """Bytes of one line of the process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} in /proc/self/status")


def _strategy(name: str) -> type[FedAvg]:
    """The class that ``name`` means."""
    file, _, kind = name.rpartition(":")
    if not file:
        own: type[FedAvg] = getattr(flmq.server.strategy, name)
        return own
    names: dict[str, Any] = {"__name__": "page"}
    exec(program(ROOT / "docs" / "strategies.md", file), names)
    found: type[FedAvg] = names[kind]
    return found


def main(url: str, clients: int, numbers: int, name: str) -> None:
    """Run a round, or two if the strategy keeps state, and print the memory before and its peak."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): begin VmHWM anew
    idle = _status("VmRSS")
    strategy = _strategy(name)(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters([np.ones(numbers // 8, np.float32)] * 8),
    )
    rounds: list[RunEvent] = []
    start_server(
        server_address=url,
        strategy=strategy,
        config=ServerConfig(2 if strategy.state_dict() else 1, None),
        job=f"job{clients}",
        observers=[rounds.append],
    )
    accepted = [event.fit.accepted for event in rounds if isinstance(event, RoundClosed)]
    print(json.dumps({"idle": idle, "peak": _status("VmHWM"), "accepted": accepted}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
