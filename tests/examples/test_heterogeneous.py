"""The examples for clients that differ: each strategy's server with its numpy and torch clients."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from flmq.client.options import WorkerOptions
from flmq.server.context import ServerContext
from tests.docs.pages import ROOT
from tests.end_to_end.federation import Federation
from tests.end_to_end.fixtures import memory_federation

__all__ = ["memory_federation"]

FOLDER = ROOT / "examples" / "heterogeneous"
PAIRS = {"fedprox": "Proximal", "scaffold": "Scaffold", "fednova": "Nova"}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a file of the example."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return load


def run(
    federation: Federation,
    load: Callable[[str], ModuleType],
    clients: str,
    strategy: str,
    folder: Path,
) -> None:
    """Ten rounds of two clients, whose model must have learned most of their digits."""
    source = getattr(load(clients), PAIRS[strategy])
    options = WorkerOptions(heartbeat=1.0, state_dir=folder)
    for partition, client_id in enumerate(("alice", "bob")):
        properties = {"partition": partition}
        federation.serve(client_id, source=source, properties=properties, options=options)
    parts = getattr(load("server"), strategy)(ServerContext("job"))
    history = federation.run(parts.strategy, config=parts.config).history()
    accuracy = [float(value) for _, value in history.metrics_distributed["accuracy"]]
    assert len(accuracy) == 10
    assert accuracy[-1] > 0.85, accuracy


@pytest.mark.parametrize("strategy", PAIRS)
def test_with_numpy(
    memory_federation: Federation,
    module: Callable[[str], ModuleType],
    tmp_path: Path,
    strategy: str,
) -> None:
    run(memory_federation, module, "numpy_clients", strategy, tmp_path)


@pytest.mark.torch
@pytest.mark.parametrize("strategy", PAIRS)
def test_with_torch(
    memory_federation: Federation,
    module: Callable[[str], ModuleType],
    tmp_path: Path,
    strategy: str,
) -> None:
    run(memory_federation, module, "torch_clients", strategy, tmp_path)
