"""A server that tells how much memory a round took: ``python -m ... URL CLIENTS NUMBERS``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from flmq.common import ndarrays_to_parameters
from flmq.observe.events import RoundClosed, RunEvent
from flmq.server import start_server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import FedAvg


def _status(field: str) -> int:
    """Bytes of one line of the process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} in /proc/self/status")


def main(url: str, clients: int, numbers: int) -> None:
    """Run one round, and print the memory before and the most of it."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): begin VmHWM anew
    idle = _status("VmRSS")
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters([np.ones(numbers, np.float32)]),
    )
    rounds: list[RunEvent] = []
    start_server(
        server_address=url,
        strategy=strategy,
        config=ServerConfig(1, None),
        job=f"job{clients}",
        observers=[rounds.append],
    )
    accepted = [event.fit.accepted for event in rounds if isinstance(event, RoundClosed)]
    print(json.dumps({"idle": idle, "peak": _status("VmHWM"), "accepted": accepted}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
