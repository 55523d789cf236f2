"""The best model so far is one file, which follows what the journal says is best."""

from __future__ import annotations

import logging
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from flmq.common import Parameters, ndarrays_to_parameters
from flmq.common.model_files import load_parameters
from flmq.journal import Journal, KeepPolicy
from flmq.journal.state import StateValue
from flmq.server.app import start_server
from flmq.server.components import InvalidComponents
from flmq.server.history import History
from flmq.server.resumption import best_model
from flmq.server.resumption.best_model import BestModel, best_file
from flmq.server.resumption.checkpointer import Checkpointer
from flmq.server.resumption.job_journal import JobJournal
from flmq.server.strategy import FedAvg
from tests.journal.runs import begun, model


def checkpointer(journal: Journal, by: str) -> Checkpointer:
    journal.keep(KeepPolicy(best=by))
    made = Checkpointer(
        JobJournal(journal), lambda _phase, _round: None, by, BestModel(journal, by)
    )
    made.resume(FedAvg())
    return made


def close_round(
    keeper: Checkpointer, server_round: int, accuracy: float, parameters: Parameters | None = None
) -> None:
    parameters = model(server_round) if parameters is None else parameters
    summary: dict[str, StateValue] = {"loss": 1.0, "metrics": {"accuracy": accuracy}}
    keeper.checkpoint(server_round, parameters, History(), FedAvg(), summary)


def test_it_is_the_best_with_its_round_and_measure(tmp_path: Path) -> None:
    journal = begun(tmp_path / "job")
    keeper = checkpointer(journal, "accuracy")
    for server_round, accuracy in enumerate([0.5, 0.75, 0.6, 0.75], 1):
        close_round(keeper, server_round, accuracy)
    path = best_file(journal.folder)
    assert path == journal.folder / "best.safetensors"
    assert load_parameters(path).tensors == list(model(2).tensors)  # the first of equals
    with safe_open(path, "np") as file:
        said = file.metadata()
    assert (said["flmq.round"], said["flmq.best_by"], said["flmq.measured"]) == (
        "2",
        "accuracy",
        "0.75",
    )
    journal.close()


def test_a_server_that_resumes_writes_what_a_kill_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = begun(tmp_path / "job")
    keeper = checkpointer(journal, "accuracy")
    close_round(keeper, 1, 0.5)

    def die(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(best_model, "crash_point", die)
    with pytest.raises(KeyboardInterrupt):
        close_round(keeper, 2, 0.75)
    monkeypatch.undo()
    path = journal.folder / "best.safetensors"
    assert load_parameters(path).tensors == list(model(1).tensors)
    checkpointer(journal, "accuracy")
    assert load_parameters(path).tensors == list(model(2).tensors)
    journal.close()


def test_a_model_that_safetensors_cannot_hold_is_in_the_other_format(tmp_path: Path) -> None:
    """There is one file at any time."""
    journal = begun(tmp_path / "job")
    keeper = checkpointer(journal, "accuracy")
    wide = ndarrays_to_parameters([np.ones(3, np.complex128)])
    narrow = ndarrays_to_parameters([np.ones(3, ml_dtypes.bfloat16)])
    kept = []
    for server_round, parameters in enumerate([model(1), wide, narrow], 1):
        close_round(keeper, server_round, server_round / 10, parameters)
        kept.append([path.name for path in journal.folder.glob("best*")])
    assert kept == [["best.safetensors"], ["best.npz"], ["best.safetensors"]]
    journal.close()


def test_a_disk_that_refuses_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*told: object) -> None:
        raise OSError(28, "No space left on device")

    journal = begun(tmp_path / "job")
    keeper = checkpointer(journal, "accuracy")
    monkeypatch.setattr(best_model, "save_parameters", refuse)
    with caplog.at_level(logging.WARNING):
        close_round(keeper, 1, 0.5)
    assert "the best model so far, of round 1, is not written" in caplog.text
    monkeypatch.undo()
    close_round(keeper, 2, 0.25)
    assert best_file(journal.folder) is not None
    journal.close()


def test_a_job_without_a_folder_can_keep_none() -> None:
    with pytest.raises(InvalidComponents, match=r"has none: give job=\.\.\."):
        start_server(server_address="amqp://localhost", keep_best="loss")
