"""The commands of the page on observers that write a run for other tools, over a real broker."""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flmq.observe.record import load_record
from tests.docs.pages import ROOT, commands
from tests.monitoring.scraping import until
from tests.processes import Commands

PAGE = ROOT / "docs" / "observing.md"
EXTRAS = ("--tensorboard", "--mlflow", "--wandb")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def started(broker_url: str, tmp_path: Path) -> Iterator[Commands]:
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    made = Commands(broker_url, tmp_path, WANDB_MODE="offline")
    yield made
    made.end()


def typed() -> list[str]:
    """One command with the options of all three."""
    lines = [shlex.split(line) for line in commands(PAGE) if "--job line --" in line]
    assert [words[-2] for words in lines] == list(EXTRAS)
    return [*lines[0][1:-2], *(word for words in lines for word in words[-2:])]


def test_its_commands_write_what_each_tool_reads(started: Commands, tmp_path: Path) -> None:
    server = started.run(*typed(), "--rounds", "3", "--wait-timeout", "280")
    # Before its clients come, the run has been begun in each of them.
    deadline = time.monotonic() + 200
    while not (tmp_path / "mlflow.db").exists() or not list(tmp_path.glob("wandb/offline-run-*")):
        assert time.monotonic() < deadline, started.outputs()
        assert server.poll() is None, started.outputs()
        time.sleep(0.2)
    for name in ("a", "b"):
        started.run("client", "app:client", "--client-id", name, "--once")
    assert server.wait(200) == 0, started.outputs()
    assert list((tmp_path / "boards" / "line").glob("events.out.tfevents.*"))
    assert (tmp_path / "mlflow.db").exists()
    assert list((tmp_path / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_a_server_that_is_killed_and_resumed_is_one_run_in_each_tool(
    started: Commands, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*typed(), "--rounds", "60", "--wait-timeout", "60"]
    server = started.run(*words)
    for name in ("a", "b"):
        started.run("client", "app:client", "--client-id", name, "--once")
    record = tmp_path / "runs" / "line" / "history.json"
    until(lambda: record.exists() and '"server_round": 3,' in record.read_text(), started.outputs())
    server.send_signal(signal.SIGKILL)
    server.wait()
    server = started.run(*words)
    assert server.wait(200) == 0, started.outputs()
    losses: list[Any] = [
        (each.server_round, pytest.approx(each.loss, rel=1e-6))
        for each in load_record(record).rounds
    ]
    assert len(losses) == 60
    board = EventAccumulator(str(tmp_path / "boards" / "line"), size_guidance={"scalars": 0})
    board.Reload()
    assert [(each.step, each.value) for each in board.Scalars("loss")] == losses
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("flmq")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    told = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((each.step, each.value) for each in told) == losses
    assert run.info.status == "FINISHED"
    ids = {each.name.rpartition("-")[2] for each in (tmp_path / "wandb").glob("offline-run-*")}
    assert len(ids) == 1
