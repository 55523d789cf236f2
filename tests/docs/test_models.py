"""The page on models is true: its program runs, and what it writes is read by other tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from flmq.common import NDArrays, ndarrays_to_parameters, save_parameters
from flmq.server.components import build_server
from flmq.server.strategy import TrainOnly
from tests.docs.pages import ROOT, program

PAGE = ROOT / "docs" / "models.md"


def test_the_program_names_tensors_and_writes_a_file(tmp_path: Path) -> None:
    (tmp_path / "naming.py").write_text(program(PAGE, "naming.py"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "naming.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "('fc.weight', 'fc.bias')\n"
    with safe_open(tmp_path / "start.safetensors", framework="np") as file:
        assert file.metadata()["trained on"] == "nothing yet"
        assert set(file.keys()) == {"fc.weight", "fc.bias"}


def test_the_strategies_of_a_part_take_the_model_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["0.lora_A.w", "0.lora_B.w", "bn.num_batches_tracked", "head.w"]
    arrays: NDArrays = [np.ones(2), np.ones(2), np.array(3), np.ones(5)]
    save_parameters(ndarrays_to_parameters(arrays, names), "model.safetensors")
    written: dict[str, Any] = {}
    exec(program(PAGE, "part.py"), written)
    for name in ("server", "personal"):
        server, _ = build_server(written[name]())
        assert isinstance(server.strategy, TrainOnly)
        assert server.strategy.subset.places(names) == (0, 1)


def test_the_program_of_narrow_floats_prints_what_the_page_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exec(program(PAGE, "narrow.py"), {})
    assert capsys.readouterr().out == "[1 -0 256] bfloat16\n"
    assert "prints `[1 -0 256] bfloat16`" in PAGE.read_text(encoding="utf-8")
