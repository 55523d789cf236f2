"""A run in the log: nobody who failed goes unsaid, and thousands do not drown the rest."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.client.serving.worker import WorkerOptions
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.common.logger import LOG_FIELDS
from flmq.observe.events import (
    ClientOutcome,
    Outcome,
    Phase,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
    TaskReceived,
    TaskRef,
    WorkerEvent,
)
from flmq.observe.run_log import RunLog
from flmq.server import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.simulation import start_simulation
from tests.end_to_end.federation import Federation, fed_avg

STARTED = RunStarted("j", 2, "FedAvg", "in memory", folder="runs/j")


def logged(caplog: pytest.LogCaptureFixture, *events: RunEvent) -> list[str]:
    caplog.clear()
    caplog.set_level(logging.INFO, "flmq")
    log = RunLog()
    for event in events:
        log(event)
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (Outcome.FAILED, "failed"),
        (Outcome.REJECTED, "was rejected"),
        (Outcome.LATE, "was late"),
        (Outcome.SILENT, "did not answer"),
        (Outcome.UNROUTABLE, "has no queue"),
    ],
)
def test_each_client_that_did_not_contribute_is_warned_of_with_its_reason(
    word: Outcome, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = ClientOutcome(3, Phase.FIT, "bob", word, "no\n\x1b[2Jdata")
    (line,) = logged(caplog, outcome)
    assert line == f"WARNING round 3, fit: client bob {said}: no \N{REPLACEMENT CHARACTER}[2Jdata"


def test_what_is_ordinary_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    words = (Outcome.ACCEPTED, Outcome.DUPLICATE)
    assert logged(caplog, *(ClientOutcome(1, Phase.FIT, "a", word) for word in words)) == []


def test_of_thousands_the_first_are_named_and_the_others_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes = [
        ClientOutcome(1, phase, str(at), Outcome.FAILED, "no data")
        for phase in (Phase.FIT, Phase.EVALUATE)
        for at in range(5000)
    ]
    counts = RoundCounts(5000, 0, 5000)
    closed = RoundClosed(1, 1, counts, counts, None, {}, 1.0, 0, 0, changed=False)
    lines = logged(caplog, *outcomes, closed)
    assert len(lines) == 23
    assert "WARNING round 1, fit: 4990 more clients failed" in lines
    assert "WARNING round 1, evaluate: 4990 more clients failed" in lines


def test_a_round_has_one_line_and_the_end_sums_up(caplog: pytest.LogCaptureFixture) -> None:
    first = RoundClosed(
        1, 2, RoundCounts(3, 2, 1), RoundCounts(2, 2), 0.25, {"f1": 0.5}, 1.5, 2_000_000, 0
    )
    second = RoundClosed(
        2, 2, RoundCounts(3, 0, 3), RoundCounts(), None, {}, 0.5, 0, 0, changed=False
    )
    lines = logged(caplog, STARTED, first, second, RunEnded("j", 2, 2.5))
    assert lines == [
        (
            "INFO round 1/2: fit 2 of 3 answered, 1 failed; evaluate 2 of 2 answered; "
            "loss 0.25, f1 0.5; 1.5 s, 2.00 MB down, 0.00 MB up"
        ),
        (
            "INFO round 2/2: fit 0 of 3 answered, 3 failed; the model stays as it was; "
            "0.5 s, 0.00 MB down, 0.00 MB up"
        ),
        (
            "INFO job j: done; 2 rounds in 2.5 s; 1 of them changed the model; "
            "fit 2 of 6 answered, 4 failed; evaluate 2 of 2 answered; files in runs/j"
        ),
    ]


def test_a_run_that_changed_nothing_ends_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    closed = RoundClosed(
        1, 1, RoundCounts(1, 0, 1), RoundCounts(), None, {}, 0.5, 0, 0, changed=False
    )
    ended = RunEnded("j", 1, 1.0, unchanged="nobody can train")
    assert logged(caplog, closed, ended)[-1].startswith(
        "WARNING job j: over, and no round changed the model; the last: nobody can train; "
    )


def test_earlier_rounds_count_and_a_stop_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    earlier = RoundClosed(1, 9, RoundCounts(2, 2), RoundCounts(), None, {}, 0.5, 0, 0)
    started = RunStarted("j", 9, "FedAvg", "in memory", (earlier,))
    ended = RunEnded("j", 1, 1.0, "stopped after round 1", stopped=True)
    (line,) = logged(caplog, started, ended)
    assert line == (
        "INFO job j: stopped after round 1 of 9; 1 rounds in 1.0 s; 1 of them changed the model; "
        "fit 2 of 2 answered"
    )


class NoData(NumPyClient):
    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        raise FileNotFoundError("no data on this machine")


def test_a_program_without_observers_reads_in_the_log_who_failed_and_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "flmq")
    start_simulation(
        client_fn=NoData,
        num_clients=2,
        config=ServerConfig(num_rounds=1),
        strategy=FedAvg(
            fraction_evaluate=0.0, initial_parameters=ndarrays_to_parameters([np.zeros(1)])
        ),
    )
    for client_id in ("0", "1"):
        said = (
            f"round 1, fit: client {client_id} failed: FileNotFoundError: no data on this machine"
        )
        assert caplog.text.count(said) == 1
    assert "the model stays as it was: no reply counts (client 0: failed: FileNotFound" in (
        caplog.text
    )
    assert "0 of them changed the model" in caplog.text


def test_lines_say_what_they_are_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flmq")
    log = RunLog(first=1)
    log(RunStarted("the-job", 1, "FedAvg", "in memory", run="5f1c"))
    for client_id in ("a", "b"):
        log(
            ClientOutcome(1, Phase.FIT, client_id, Outcome.FAILED, "no data", task_id=client_id * 4)
        )
    counts = RoundCounts(asked=2, failed=2)
    log(RoundClosed(1, 1, counts, RoundCounts(), None, {}, 1.0, 0, 0))
    log(RunEnded("the-job", 1, 1.0))
    assert [fields(each) for each in caplog.records] == [
        ("the-job", 1, "fit", "a", "aaaa"),
        ("the-job", 1, "fit", None, None),
        ("the-job", 1, None, None, None),
        ("the-job", None, None, None, None),
    ]
    assert {getattr(each, "run", "") for each in caplog.records} == {"5f1c"}


def test_a_failure_is_logged_with_its_job_round_phase_client_and_task(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flmq")
    tasks: list[TaskRef] = []

    def keep(event: WorkerEvent) -> None:
        if isinstance(event, TaskReceived):
            tasks.append(event.task)

    options = WorkerOptions(heartbeat=1.0, observers=[keep])
    memory_federation.serve("good", options=options)
    memory_federation.serve("bad", source=NoData(), options=options)
    memory_federation.run(fed_avg(2), rounds=2, observers=[RunLog()]).history()
    memory_federation.workers["bad"].stop()
    said = [record for record in caplog.records if record.message.startswith("round ")]
    failures = [
        record for record in said if "client bad failed: FileNotFoundError" in record.message
    ]
    bad = [(ref.server_round, ref.task_id) for ref in tasks if ref.client_id == "bad"]
    assert [fields(record) for record in failures] == [
        ("job", server_round, "fit", "bad", task_id) for server_round, task_id in sorted(bad)
    ]
    closed = [record for record in said if "answered" in record.message]
    assert [fields(record) for record in closed] == [
        ("job", 1, None, None, None),
        ("job", 2, None, None, None),
    ]


def fields(record: logging.LogRecord) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in LOG_FIELDS if name != "run")
