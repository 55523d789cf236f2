"""Selection, early stopping, the best model and callbacks, with a server killed on the way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flmq.cli.main import app
from flmq.common.crashpoints import CRASH_AT
from flmq.common.model_files import load_parameters
from flmq.common.phase import Phase
from flmq.journal import Journal
from flmq.journal.records import RoundRow
from flmq.observe.record import load_record
from flmq.server.options import RunOptions
from flmq.simulation.app import simulate
from flmq.wire import refer
from tests.end_to_end import rhythm_app
from tests.end_to_end.federation import JOB, Federation, Watch
from tests.processes import environment, start
from tests.transport.rigs import RabbitMQRig

SLOW = 60.0


@pytest.fixture
def over_rabbitmq(broker_url: str) -> Iterator[Federation]:
    rig = RabbitMQRig(broker_url)
    made = Federation(rig)
    yield made
    made.close()
    rig.close()


def undisturbed() -> bytes:
    """The model of the run that nobody kills."""
    watch = Watch()
    simulate(
        rhythm_app.client,
        {client_id: {} for client_id in rhythm_app.CLIENTS},
        rhythm_app.server(),
        RunOptions(job=JOB, observers=(watch,)),
        keep_clients=True,
    )
    return watch.model()


def asked(rows: list[RoundRow]) -> dict[int, str]:
    """Who was asked to train in each round."""
    return {
        row.server_round: "".join(sorted(outcome.client_id for outcome in phase.outcomes))
        for row in rows
        for phase in row.phases
        if phase.phase is Phase.FIT
    }


def test_a_server_that_is_killed_selects_stops_and_tells_as_one_that_is_not(
    broker_url: str,
    tmp_path: Path,
    over_rabbitmq: Federation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It dies as it replaces the best model, and as it has closed its last round."""
    told, folder = tmp_path / "told", tmp_path / "runs" / JOB
    monkeypatch.setenv("FLMQ_TEST_TOLD", str(tmp_path / "undisturbed"))
    over_rabbitmq.serve(*rhythm_app.CLIENTS, source=rhythm_app.client)

    def run(number: int, crash_at: str) -> int:
        env = {
            **environment(broker_url),
            "FLMQ_HEARTBEAT": "1",
            "FLMQ_TEST_TOLD": str(told),
            CRASH_AT: crash_at,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        command = [sys.executable, "-m", "flmq", "server", "tests.end_to_end.rhythm_app:server"]
        command += [f"--job={JOB}", "--keep-best=loss"]
        return start(command, tmp_path / f"server-{number}", tmp_path, env).wait(SLOW)

    assert run(1, "server.best_model:2") == -9
    assert load_parameters(folder / "best.safetensors").tensors  # that of the first round, whole
    assert run(2, "server.round_closed:3") == -9
    assert run(3, "") == 0, (tmp_path / "server-3").read_text()
    rounds = {number: f"round {number} loss {loss}" for number, loss in rhythm_app.LOSSES.items()}
    assert told.read_text().splitlines() == [
        *("begin 0", rounds[1]),
        *("begin 2", rounds[2], rounds[3], rounds[4]),
        *("begin 5", rounds[5], "end 5"),
    ]
    record = load_record(folder)
    assert record.stopped_early == (
        "loss has not improved for 2 rounds: the best was 3, after round 3"
    )
    assert record.error is None
    assert (5, "callback breaks.on_round_end raised ZeroDivisionError: in round 5") in record.notes
    final = load_parameters(folder / "model.npz")
    assert b"".join(final.tensors) == undisturbed()
    journal = Journal.open(folder, create=False)
    rows = journal.rounds()
    journal.close()
    assert asked(rows) == {1: "abc", 2: "ab", 3: "ab", 4: "abc", 5: "abc"}
    models = {row.server_round: row.summary["model"] for row in rows}
    assert refer(load_parameters(folder / "best.safetensors")).digest == models[3]
    assert sorted(path.name for path in folder.glob("best*")) == ["best.safetensors"]
    monkeypatch.setenv("FLMQ_RUNS_DIR", str(tmp_path / "runs"))
    listed = CliRunner().invoke(app, ["runs"]).output
    assert "finished" in listed
    assert "stopped early: loss" in " ".join(listed.split())
    shown = CliRunner().invoke(app, ["runs", "show", JOB]).output
    assert f"best model: round 3, loss 3.000: {folder / 'best.safetensors'}" in shown
    assert "stopped early: loss has not improved for 2 rounds" in shown
