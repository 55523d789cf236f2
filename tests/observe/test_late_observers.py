"""Who begins to observe in mid-run, or could not keep up, stands where everybody stands."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flmq.client import NumPyClient
from flmq.common.typing import Config, Metrics, NDArrays
from flmq.observe.bus import EventBus
from flmq.observe.events import ClientOutcome, Outcome, PhaseOpened, RoundClosed, RunEnded, RunEvent
from flmq.observe.record import load_record
from flmq.observe.recorder import RunRecorder
from flmq.observe.run_state import Board
from tests.end_to_end.federation import JOB, Federation, Keeping, Nudge, Watch, fed_avg
from tests.transport.rigs import PATIENCE

ROUNDS = 5


class Failing(NumPyClient):
    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        raise ValueError("no data")

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return 1.0, 1, {}


class Halting(Keeping):
    """Waits in the middle of its third round."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.is_there, self.go_on = threading.Event(), threading.Event()

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        if server_round == 3:
            self.is_there.set()
            assert self.go_on.wait(PATIENCE)
        return super().aggregate_fit(server_round, results, failures)


def halting() -> Halting:
    options = {"min_fit_clients": 3, "min_evaluate_clients": 3, "min_available_clients": 3}
    return Halting(**options, initial_parameters=fed_avg(3).initial_parameters)


class Observed:
    """An observer with read models of the run."""

    def __init__(self, folder: Path) -> None:
        self.board, self.watch = Board(), Watch()
        self.recorder = RunRecorder(folder)

    def __call__(self, event: RunEvent) -> None:
        self.board.apply(event, 0.0)
        self.recorder(event)
        self.watch(event)

    def outcomes(self) -> Counter[tuple[int, str, str, Outcome, str]]:
        """What became of whom in which round, and how often that was told."""
        return Counter(
            (each.server_round, each.phase.value, each.client_id, each.outcome, each.reason)
            for each in self.watch.of(ClientOutcome)
            if not each.is_straggler
        )

    def stands(self) -> tuple[Any, ...]:
        """Where the run stands, by all that it was told."""
        board, stage = self.board, self.board.stage
        assert stage is not None
        closed = [each.server_round for each in self.watch.of(RoundClosed)]
        return (
            *(board.started, board.rounds, board.presence, board.online, board.awaited),
            *(stage.server_round, stage.phase, stage.cells, stage.closed),
            *(board.connections, board.ended, closed),
        )


@pytest.mark.parametrize("journal", [True, False])
def test_an_observer_of_the_third_round_of_five_ends_up_with_all_of_them(
    memory_federation: Federation, tmp_path: Path, journal: bool
) -> None:
    memory_federation.serve("a", "b")
    memory_federation.serve("c", source=Failing())
    first, late, last = (Observed(tmp_path / name) for name in ("first", "late", "last"))
    strategy, bus = halting(), EventBus([first])
    running = memory_federation.run(
        strategy, ROUNDS, observers=bus, runs_dir=tmp_path / "runs" if journal else None
    )
    assert strategy.is_there.wait(PATIENCE)
    bus.attach(late)
    # What is over comes at once, and the round that is open, without anything happening.
    late.watch.wait_for(PhaseOpened, lambda event: event.server_round == 3)
    late.watch.wait_for(ClientOutcome, lambda event: event.server_round == 3, count=3)
    strategy.go_on.set()
    running.history()
    bus.attach(last)
    last.watch.wait_for(RunEnded)
    assert late.stands() == first.stands()
    assert [each.server_round for each in first.board.rounds] == [1, 2, 3, 4, 5]
    if journal:
        assert last.stands() == first.stands()
        assert late.outcomes() == last.outcomes() == first.outcomes()
        assert set(first.outcomes().values()) == {1}
        assert len(first.outcomes()) == ROUNDS * 6


def test_who_was_stuck_is_told_from_the_journal_what_did_not_wait_for_it(
    memory_federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost for it, and the run did not wait."""
    first, stuck = Observed(tmp_path / "first"), Observed(tmp_path / "stuck")
    go, is_stuck = threading.Event(), threading.Event()

    def observer(event: RunEvent) -> None:
        stuck(event)
        if isinstance(event, ClientOutcome) and event.server_round == 1:
            is_stuck.set()
            go.wait(PATIENCE)

    memory_federation.serve("a", "b", source=Nudge("a"))
    bus = EventBus([first, observer], limit=10)
    running = memory_federation.run(
        fed_avg(2, fraction_evaluate=1.0), 20, observers=bus, runs_dir=tmp_path / "runs"
    )
    assert is_stuck.wait(PATIENCE)
    running.watch.wait_for(RunEnded)
    go.set()
    running.history()
    assert stuck.stands() == first.stands()
    assert stuck.outcomes() == first.outcomes()
    path = stuck.recorder.path
    assert path is not None
    record = load_record(path)
    assert [each.server_round for each in record.rounds] == list(range(1, 21))
    assert all(len(each.outcomes) == 4 for each in record.rounds)
    assert not [each for each in caplog.records if "ClientOutcome" in each.getMessage()]


def test_a_journal_that_is_gone_costs_its_details_and_nothing_else(
    memory_federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory_federation.serve("a")
    bus = EventBus()
    memory_federation.run(fed_avg(1), 2, observers=bus, runs_dir=tmp_path).history()
    shutil.rmtree(tmp_path / JOB)
    watch = Watch()
    bus.attach(watch)
    watch.wait_for(RunEnded)
    assert [each.server_round for each in watch.rounds()] == [1, 2]
    assert watch.of(ClientOutcome) == []
    said = [each.getMessage() for each in caplog.records if "is not told who did" in each.message]
    assert len(said) == 2
