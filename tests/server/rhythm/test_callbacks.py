"""Callbacks: what they are told, on which thread, and what becomes of one that raises."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import Parameters, parameters_to_ndarrays
from flmq.common.phase import Phase
from flmq.common.typing import Scalar
from flmq.observe.events import ClientOutcome, Note, RoundClosed, RoundCounts, RunEnded, RunEvent
from flmq.round import Outcome
from flmq.server import Callback, EarlyStopping, ServerAppComponents, ServerConfig
from flmq.server.components import InvalidComponents, build_server
from flmq.server.lifecycle import run
from flmq.server.rhythm.callbacks import CallbackFailed, Callbacks
from flmq.server.strategy import FedAvg
from flmq.simulation import start_simulation
from tests.dying import Died
from tests.end_to_end.federation import Federation, RunningServer, initial, nudge
from tests.server.proxies import model

MODEL = model([1.0, 2.0])


def closed(server_round: int = 1, **figures: Any) -> RoundClosed:
    asked = RoundCounts(asked=2, accepted=2)
    return RoundClosed(server_round, 3, asked, asked, 0.5, {"accuracy": 0.9}, 0.1, 1, 1, **figures)


class Noting(Callback):
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.replies: list[ClientOutcome] = []
        self.threads: set[int] = set()

    def on_run_begin(self, job: str, num_rounds: int, rounds_closed: int) -> None:
        self.told.append(("begin", num_rounds, rounds_closed))

    def on_round_end(
        self, server_round: int, parameters: Parameters, metrics: Mapping[str, Scalar]
    ) -> None:
        self.told.append(("round", server_round, sorted(metrics)))
        self.threads.add(threading.get_ident())

    def on_reply(self, reply: ClientOutcome) -> None:
        self.replies.append(reply)

    def on_run_end(self, ended: RunEnded) -> None:
        self.told.append(("end", ended.rounds, ended.error))


class Failing(Noting):
    """Raises in one of its methods."""

    def __init__(self, method: str, fatal: bool = False) -> None:
        super().__init__()
        self.fatal = fatal
        setattr(self, method, self._fail)

    def _fail(self, *told: object) -> None:
        raise ZeroDivisionError("by callback")


def test_all_is_told_in_order_and_rounds_on_the_servers_thread() -> None:
    noting, models = Noting(), []

    def keep(server_round: int, parameters: Parameters, metrics: Mapping[str, Scalar]) -> None:
        models.append(parameters_to_ndarrays(parameters)[0])

    start_simulation(
        client_fn=nudge,
        num_clients=2,
        config=ServerConfig(num_rounds=2),
        strategy=FedAvg(initial_parameters=initial()),
        callbacks=[noting, keep],
    )
    assert [each[:2] for each in noting.told] == [
        ("begin", 2),
        ("round", 1),
        ("round", 2),
        ("end", 2),
    ]
    assert "loss" in noting.told[1][2]
    assert noting.threads == {threading.get_ident()}
    assert len(noting.replies) == 8  # two clients train and evaluate in two rounds
    assert {each.outcome for each in noting.replies} == {Outcome.ACCEPTED}
    assert len(models) == 2
    assert not np.array_equal(models[0], models[1])


@pytest.mark.parametrize("method", ["on_run_begin", "on_round_end", "on_run_end"])
def test_one_that_raises_is_named_and_the_others_are_called(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[RunEvent] = []
    noting = Noting()
    callbacks = Callbacks([Failing(method), noting], notes.append)
    callbacks.run_begins("job", 3, 0)
    for server_round in (1, 2):
        callbacks.round_ended(closed(server_round), MODEL)
    callbacks.run_ended(RunEnded("job", 2, 1.0))
    assert [each[0] for each in noting.told] == ["begin", "round", "round", "end"]
    text = f"callback Failing.{method} raised ZeroDivisionError: by callback"
    assert notes
    assert all(isinstance(note, Note) and note.text == text for note in notes)
    assert text in caplog.text


@pytest.mark.parametrize("method", ["on_run_begin", "on_round_end", "on_run_end"])
def test_a_fatal_one_ends_the_run(method: str) -> None:
    callbacks = Callbacks([Failing(method, fatal=True)], lambda event: None)

    def told() -> None:
        callbacks.run_begins("job", 3, 0)
        callbacks.round_ended(closed(), MODEL)
        callbacks.run_ended(RunEnded("job", 2, 1.0))

    with pytest.raises(CallbackFailed, match=f"Failing.{method} raised ZeroDiv") as raised:
        told()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_after_a_failure_a_fatal_one_does_not_take_its_place() -> None:
    callbacks = Callbacks([Failing("on_run_end", fatal=True)], lambda event: None)
    callbacks.run_ended(RunEnded("job", 2, 1.0, error="no disk"))


class FailsOnReply(Callback):
    fatal = True

    def on_reply(self, reply: ClientOutcome) -> None:
        raise ZeroDivisionError(reply.client_id)


def test_a_reply_that_is_fatal_ends_the_run_with_its_round() -> None:
    callbacks = Callbacks([FailsOnReply(), Noting(), lambda *told: None], lambda event: None)
    observers = callbacks.observers()
    assert len(observers) == 2  # the function has no use for replies
    for outcome in (Outcome.SILENT, Outcome.UNROUTABLE):
        observers[0](ClientOutcome(1, Phase.FIT, "a", outcome))
    callbacks.round_ended(closed(1), MODEL)
    observers[0](ClientOutcome(2, Phase.FIT, "a", Outcome.ACCEPTED))
    with pytest.raises(CallbackFailed, match=r"FailsOnReply.on_reply raised ZeroDivisionError: a"):
        callbacks.round_ended(closed(2), MODEL)


def test_many_failures_in_one_round_are_one_note() -> None:
    notes: list[RunEvent] = []
    callback = FailsOnReply()
    callback.fatal = False
    (observer,) = Callbacks([callback], notes.append).observers()
    for server_round in (1, 1, 1, 2, 2):
        observer(ClientOutcome(server_round, Phase.FIT, "a", Outcome.FAILED))
    assert [note.server_round for note in notes if isinstance(note, Note)] == [1, 2]


def test_a_run_that_a_callback_ends_says_so() -> None:
    with pytest.raises(CallbackFailed, match="start the server again to go on"):
        start_simulation(
            client_fn=nudge,
            num_clients=2,
            config=ServerConfig(num_rounds=2),
            strategy=FedAvg(initial_parameters=initial()),
            callbacks=[Failing("on_round_end", fatal=True)],
        )


@pytest.mark.parametrize(
    ("callbacks", "said"),
    [
        (Noting(), "callbacks must be a list of callbacks, and is a Noting"),
        ("Noting", "callbacks must be a list of callbacks, and is a str"),
        ([Noting], "a callback is the class Noting; make one"),
        ([3], "a callback is a int: give a flmq Callback"),
    ],
)
def test_what_is_no_callback_is_refused(callbacks: Any, said: str) -> None:
    with pytest.raises(InvalidComponents, match=said):
        build_server(ServerAppComponents(callbacks=callbacks))


def test_a_run_stops_early_in_a_simulation_and_says_why() -> None:
    ended: list[RunEvent] = []
    history = start_simulation(
        client_fn=nudge,
        num_clients=2,
        config=ServerConfig(num_rounds=50, early_stopping=EarlyStopping(patience=2, min_delta=1e9)),
        strategy=FedAvg(initial_parameters=initial()),
        observers=[ended.append],
    )
    assert len(history.losses_distributed) == 3
    last = next(each for each in ended if isinstance(each, RunEnded))
    assert last.stopped_early.startswith("loss has not improved by more than 1e+09 for 2 rounds")
    assert (last.error, last.unchanged, last.rounds) == (None, "", 3)


def test_a_run_that_stopped_early_is_finished_for_every_server_after(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first dies when clients have been told of the end, and the journal not yet."""

    def die(name: str) -> None:
        raise Died(name)

    def start(callback: Callback) -> RunningServer:
        return memory_federation.run(
            FedAvg(initial_parameters=initial()),
            config=ServerConfig(num_rounds=50, early_stopping=lambda history: "enough"),
            runs_dir=tmp_path,
            callbacks=[callback],
        )

    memory_federation.serve("a", "b")
    first, second, third = Noting(), Noting(), Noting()
    monkeypatch.setattr(run, "crash_point", die)
    with pytest.raises(Died, match=r"server\.ended"):
        start(first).history()
    monkeypatch.undo()
    for callback in (second, third):
        running = start(callback)
        assert len(running.history().losses_distributed) == 1
        ended = running.watch.wait_for(RunEnded)
        assert (ended.stopped_early, ended.error) == ("enough", None)
    told = [each[:2] for each in first.told]
    assert told == [("begin", 50), ("round", 1), ("end", 1)]
    assert second.told[0] == ("begin", 50, 1)  # resumed after its only round
    assert [each[:2] for each in second.told] == told
    assert third.told == []  # the job was finished before
