"""The private example, in numpy and in PyTorch, and the programs of the page on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.client.client import answer
from flmq.client.context import ClientContext
from flmq.common import FitIns, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.clipping import KEY_CLIPPING_NORM, update_norm
from flmq.server.context import ServerContext
from flmq.server.strategy import DifferentialPrivacyServerSideFixedClipping
from flmq.simulation import start_simulation
from tests.docs.pages import ROOT, program

EXAMPLE = ROOT / "examples" / "privacy"
PAGE = ROOT / "docs" / "strategies.md"


def loaded(path: Path) -> Any:
    """An example as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"private_example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_finds_the_line_and_tells_epsilon() -> None:
    app = loaded(EXAMPLE / "app.py")
    parts = app.server(ServerContext("job", {"clients": 20}))
    history = start_simulation(
        client_fn=app.client, num_clients=20, strategy=parts.strategy, config=parts.config
    )
    (found,) = parameters_to_ndarrays(parts.strategy.global_parameters)
    assert found == pytest.approx([3.0, 1.0], abs=0.3)
    told = [epsilon for _, epsilon in history.metrics_distributed_fit["epsilon"]]
    assert len(told) == parts.config.num_rounds
    assert told == sorted(told)


@pytest.mark.torch
def test_its_client_in_pytorch_clips() -> None:
    client = loaded(EXAMPLE / "torch_client.py").client(ClientContext("job", "alice", "main"))
    (weight, bias) = ([[0.0]], [0.0])
    model = [np.array(weight, np.float32), np.array(bias, np.float32)]
    res = answer(client, FitIns(ndarrays_to_parameters(model), {KEY_CLIPPING_NORM: 0.5}))
    assert update_norm(parameters_to_ndarrays(res.parameters), model) == pytest.approx(0.5)


def test_the_page_shows_programs_that_run() -> None:
    names: dict[str, Any] = {}
    exec(program(PAGE, "private.py"), names)
    assert isinstance(names["strategy"], DifferentialPrivacyServerSideFixedClipping)
    exec(program(PAGE, "private_client.py"), names)
    client = names["client"](ClientContext("job", "alice", "main"))
    model = ndarrays_to_parameters([np.zeros(4)])
    res = answer(client, FitIns(model, {KEY_CLIPPING_NORM: 1.0}))
    assert parameters_to_ndarrays(res.parameters)[0].tolist() == [0.5] * 4
