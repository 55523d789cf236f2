"""The client of docs/strategies.md: with others like it, it finds the line through all points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.client import ClientContext
from flmq.server.strategy import SCAFFOLD
from tests.docs.pages import ROOT, program
from tests.server.strategy.heterogeneous.quadratics import rounds


def test_the_documented_client_of_scaffold(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(program(ROOT / "docs" / "strategies.md", "drift.py"), names)
    clients = {
        name: names["Line"](ClientContext("job", name, "main", {}, tmp_path / name))
        for name in ("alice", "bob")
    }
    start = [np.zeros(()), np.zeros(())]
    got = rounds(SCAFFOLD(num_clients=2), clients, start, range(1, 60))
    x = np.concatenate([client.x for client in clients.values()])
    y = np.concatenate([client.y for client in clients.values()])
    assert [float(each) for each in got] == pytest.approx(np.polyfit(x, y, 1), rel=1e-4)
