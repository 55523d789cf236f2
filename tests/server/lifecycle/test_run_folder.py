"""A job that was begun differently: the refusal names what differs, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flmq.common import ndarrays_to_parameters
from flmq.common.errors import InvalidReturnValue, JobInUse
from flmq.common.logger import logger
from flmq.observe.bus import EventBus
from flmq.server import ServerConfig
from flmq.server.components import ServerAppComponents
from flmq.server.lifecycle.run import run_server
from flmq.server.lifecycle.run_folder import JobChanged, set_aside
from flmq.server.options import RunOptions
from flmq.server.strategy import FedAvg
from flmq.transport.memory import MemoryBroker, MemoryTransport
from tests.journal.runs import begun


def test_of_many_options_those_that_differ_are_named() -> None:
    then = "fraction_evaluate=1.0, fraction_fit=1.0, inplace=True"
    now = "fraction_evaluate=0.0, fraction_fit=1.0, inplace=True"
    error = JobChanged("job", {"options of the strategy": (then, now), "seed": ("1", "2")})
    assert (
        "(options of the strategy: was fraction_evaluate=1.0, is fraction_evaluate=0.0; "
        "seed: was 1, is 2)"
    ) in str(error)


def test_an_option_that_came_anew_is_named() -> None:
    error = JobChanged("job", {"options of the strategy": ("a=1", "a=1, momentum=0.9")})
    assert "was a=1, is momentum=0.9" in str(error)


def test_a_folder_that_a_live_server_is_in_charge_of_is_not_moved_aside(tmp_path: Path) -> None:
    journal = begun(tmp_path / "job")
    with pytest.raises(JobInUse, match="is run by another live server"):
        set_aside(tmp_path / "job")
    journal.close()
    aside = set_aside(tmp_path / "job")
    assert aside is not None
    assert (aside / "journal.db").exists()
    assert not (tmp_path / "job").exists()


def test_a_run_that_fails_before_its_first_round_leaves_no_event_log_open(tmp_path: Path) -> None:
    class Unready(FedAvg):
        required_properties = 3  # type: ignore[assignment]

    strategy = Unready(initial_parameters=ndarrays_to_parameters([np.zeros(1)]))
    parts = ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=1))
    options = RunOptions(job="early", runs_dir=tmp_path)
    before = list(logger.handlers)
    bus = EventBus()
    with MemoryTransport(MemoryBroker()) as transport, pytest.raises(InvalidReturnValue):
        run_server(transport, parts, options, bus=bus, broker="in memory")
    bus.close()
    assert logger.handlers == before
    assert (tmp_path / "early" / "events.sqlite3").exists()
