"""The line that says how far a simulation is: its words, and when it is there."""

from __future__ import annotations

import io
import logging

import pytest

from flmq.common.logger import logger
from flmq.observe.events import (
    ClientOutcome,
    ClientsAwaited,
    Outcome,
    Phase,
    PhaseOpened,
    RoundClosed,
    RoundCounts,
    RunStarted,
)
from flmq.server import ServerConfig
from flmq.simulation import start_simulation
from flmq.simulation.progress import HowFar, ProgressLine, is_wanted
from tests.end_to_end.federation import Nudge, fed_avg


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _closed(server_round: int) -> RoundClosed:
    counts = RoundCounts()
    return RoundClosed(server_round, 4, counts, counts, None, {}, 0.0, 0, 0)


def test_it_counts_replies_and_measures_what_is_left() -> None:
    time = Time()
    how_far = HowFar(time)
    how_far(RunStarted("job", 4, "FedAvg", "in memory"))
    how_far(ClientsAwaited(2000, 0))
    assert how_far.text() == "waiting for clients: 0 of 2,000"
    how_far(PhaseOpened(1, Phase.FIT, tuple(map(str, range(2000))), None))
    assert how_far.text() == "round 1 of 4 [....................], fit: 0 of 2,000 replied"
    time.now = 10.0
    for number in range(1000):
        outcome = Outcome.FAILED if number < 3 else Outcome.ACCEPTED
        how_far(ClientOutcome(1, Phase.FIT, str(number), outcome))
    # Half of the first of four rounds took 10 s: seven halves are left.
    assert how_far.text() == (
        "round 1 of 4 [##..................], fit: 1,000 of 2,000 replied, 3 failed, 1:10 left"
    )
    time.now = 20.0
    how_far(PhaseOpened(1, Phase.EVALUATE, ("a", "b"), None))
    assert "evaluate: 0 of 2 replied" in how_far.text()
    how_far(ClientOutcome(1, Phase.FIT, "9", Outcome.LATE))
    assert "evaluate: 0 of 2 replied" in how_far.text()
    time.now = 30.0
    how_far(_closed(1))
    time.now = 35.0
    assert how_far.text() == "round 2 of 4 [#####...............], 1:25 left"
    for server_round in (2, 3, 4):
        how_far(_closed(server_round))
    assert how_far.text().startswith("round 4 of 4 [####################]")


def test_it_is_there_for_people_and_where_it_is_asked_for() -> None:
    assert is_wanted(None, Terminal())
    assert not is_wanted(False, Terminal())
    assert not is_wanted(None, io.StringIO())
    assert is_wanted(True, io.StringIO())


def test_lines_of_the_log_stand_above_it_and_it_leaves_nothing() -> None:
    terminal = Terminal()
    line = ProgressLine(terminal)
    line(RunStarted("job", 4, "FedAvg", "in memory"))
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    try:
        with line.shown():
            for _ in range(1000):
                if line._shown:
                    break
                line._over.wait(0.01)
            logger.error("something happened")
    finally:
        logger.removeHandler(handler)
    shown, _, after = terminal.getvalue().partition("something happened\n")
    text = "round 1 of 4 [....................]"
    assert shown.endswith(f"{text}\r{' ' * len(text)}\r")
    assert after in ("", f"{text}\r{' ' * len(text)}\r")


def test_a_simulation_shows_it_if_asked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flmq.simulation.progress._EVERY", 0.0)

    def run(progress: bool | None) -> str:
        start_simulation(
            client_fn=lambda context: Nudge(context.client_id),
            num_clients=2,
            strategy=fed_avg(2),
            config=ServerConfig(num_rounds=2),
            progress=progress,
        )
        return capsys.readouterr().err

    # Of the first round, which may be over in a moment, there may be nothing to be seen.
    assert "round 2 of 2 [" in run(True)
    assert "round 2 of 2 [" not in run(None)
