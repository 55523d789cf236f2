"""Runs without rounds by FedBuff and FedAsync: killed, resumed, replayed; stale and bad replies."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from typer.testing import CliRunner

from flmq.cli.main import app
from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import Config, FitIns, Metrics, NDArrays, ndarrays_to_parameters
from flmq.journal import Journal
from flmq.journal.records import KeepPolicy
from flmq.observe.events import BufferChanged, ClientOutcome
from flmq.observe.past_rounds import past_rounds
from flmq.observe.record import load_record
from flmq.observe.recorder import RunRecorder
from flmq.round import Outcome
from flmq.server.asks import asks as asks_module
from flmq.server.lifecycle.replay import NeedsItsStrategy, Replayed, replay
from flmq.server.replies import reply_loop
from flmq.server.resumption import checkpointer
from flmq.server.strategy import FedAsync, FedAvg, FedBuff, LateReplies
from flmq.server.streams.asynchronous_server import DROPPED, NoLateReplies
from flmq.server.streams.rests import EverybodyFails
from flmq.wire import ReceiptOutcome
from tests.docs.pages import ROOT, program
from tests.dying import Died, dies_at
from tests.end_to_end.federation import JOB, Federation, RunningServer

CLIENTS = ("a", "b", "c", "d")
STEPS = 6
PLACES = [
    (asks_module, "server.phase_planned"),
    (asks_module, "server.tasks_published"),
    (asks_module, "server.phase_closed"),
    (reply_loop, "server.reply_journalled"),
    (checkpointer, "server.round_aggregated"),
    (checkpointer, "server.round_closed"),
]
ALL = KeepPolicy(replies="all")


class Learner(NumPyClient):
    """Counts its trainings by what it was asked, and moves the model by what depends on it."""

    def __init__(self, context: ClientContext, seen: Counter[tuple[str, object]]) -> None:
        self.name, self.seen = context.client_id, seen

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        self.seen[self.name, config["asked"]] += 1
        scale = np.float32(10.0 ** -(ord(self.name[0]) % 4))
        metrics: Metrics = {"mine": 1.0, "staleness_max": 1e9}
        return [x * np.float32(0.9) + scale for x in parameters], 1, metrics

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(np.abs(parameters[0]).sum()), 1, {}


def first(size: int = 3) -> Any:
    rng = np.random.default_rng(3)
    return ndarrays_to_parameters([rng.normal(size=size).astype(np.float32)])


def fed_buff(size: int = 3, **options: Any) -> FedBuff:
    defaults: dict[str, Any] = {
        "buffer_size": 2,
        "concurrency": 4,
        "server_learning_rate": 0.7,
        "initial_parameters": first(size),
        "min_available_clients": 4,
        "on_fit_config_fn": lambda number: {"asked": uuid4().hex},
    }
    return FedBuff(**{**defaults, **options})


def serve(federation: Federation, *names: str) -> Counter[tuple[str, object]]:
    seen: Counter[tuple[str, object]] = Counter()
    federation.serve(*names, source=lambda context: Learner(context, seen))
    return seen


def replayed(folder: Path, strategy: Any) -> list[Replayed]:
    journal = Journal.open(folder / JOB, create=False)
    try:
        return list(replay(journal, strategy))
    finally:
        journal.close()


def last_model(folder: Path) -> bytes:
    journal = Journal.open(folder / JOB, create=False)
    try:
        last = journal.last_checkpoint()
        assert last is not None
        return b"".join(last.parameters.tensors)
    finally:
        journal.close()


@pytest.mark.parametrize(
    ("module", "place", "size"),
    # In turn a model that its tasks carry, and one that is a file of the journal.
    [(*place, (3, 40_000)[i % 2]) for i, place in enumerate(PLACES)],
    ids=[name for _, name in PLACES],
)
def test_killed_and_resumed_it_is_what_its_buffers_make(
    memory_federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    place: str,
    size: int,
) -> None:
    """Its model is that of the replay; no training is lost, repeated or counted twice."""
    seen = serve(memory_federation, *CLIENTS)
    monkeypatch.setattr(module, "crash_point", dies_at(place, 3, 6))

    def start() -> RunningServer:
        return memory_federation.run(
            fed_buff(size), STEPS, timeout=None, runs_dir=tmp_path, keep=ALL
        )

    for _ in range(2):
        with pytest.raises(Died):
            start().history()
    last = start()
    history = last.history()
    assert [number for number, _ in history.metrics_distributed_fit["staleness_mean"]] == [
        *range(1, STEPS + 1)
    ]
    again = replayed(tmp_path, fed_buff(size))
    assert [each.server_round for each in again] == [*range(1, STEPS + 1)]
    assert all(each.same and each.replies == 2 for each in again)
    assert last.model() == last_model(tmp_path)
    assert set(seen.values()) == {1}  # no training was repeated
    _check_counted_once(tmp_path)


def _check_counted_once(folder: Path) -> None:
    journal = Journal.open(folder / JOB, create=False)
    try:
        rounds = past_rounds(journal, STEPS)
    finally:
        journal.close()
    asks = [
        (each.client_id, each.server_round, each.call) for step in rounds for each in step.buffer
    ]
    assert len(set(asks)) == len(asks) == 2 * STEPS
    assert all(step.fit.accepted == 2 and step.changed for step in rounds)
    for step in rounds:
        for each in step.buffer:
            assert each.staleness == step.server_round - each.server_round >= 0


def test_fedasync_steps_with_each_reply_over_each_transport(
    federation: Federation, tmp_path: Path
) -> None:
    serve(federation, *CLIENTS)

    def strategy() -> FedAsync:
        return FedAsync(
            initial_parameters=first(),
            concurrency=3,
            min_available_clients=4,
            on_fit_config_fn=lambda number: {"asked": uuid4().hex},
        )

    running = federation.run(strategy(), 9, runs_dir=tmp_path, keep=ALL)
    history = running.history()
    assert len(history.metrics_distributed_fit["staleness_max"]) == 9
    assert [len(step.buffer) for step in running.watch.rounds()] == [1] * 9
    assert all(each.same for each in replayed(tmp_path, strategy()))
    busy = {len(each.busy) for each in running.watch.of(BufferChanged)}
    assert busy <= {1, 2, 3}
    assert 3 in busy


def test_a_run_without_a_journal_and_with_evaluation(memory_federation: Federation) -> None:
    serve(memory_federation, *CLIENTS)
    strategy = fed_buff(
        evaluate_every=2, evaluate_fn=lambda number, arrays, config: (float(number), {})
    )
    running = memory_federation.run(strategy, STEPS)
    history = running.history()
    assert [number for number, _ in history.losses_distributed] == [2, 4, 6]
    assert [number for number, _ in history.losses_centralized] == [*range(STEPS + 1)]
    assert [number for number, _ in history.metrics_distributed_fit["mine"]] == [1, 2, 3, 4, 5, 6]
    stale = [value for _, value in history.metrics_distributed_fit["staleness_max"]]
    assert stale == [max(e.staleness for e in step.buffer) for step in running.watch.rounds()]


def test_too_stale_an_update_is_dropped_told_and_asked_anew(
    memory_federation: Federation, tmp_path: Path
) -> None:
    serve(memory_federation, "a", "b")
    peer = memory_federation.peer("slow")
    running = memory_federation.run(
        fed_buff(buffer_size=1, concurrency=3, min_available_clients=3, max_staleness=2),
        60,
        timeout=None,
        runs_dir=tmp_path,
        observers=[RunRecorder(tmp_path)],
        keep=ALL,
    )
    task = peer.task()
    running.watch.wait_for(BufferChanged, lambda each: each.server_round > 4)
    peer.reply(task)
    receipt = peer.receipt()
    assert receipt.outcome is ReceiptOutcome.REJECTED
    assert "too stale: the model made" in receipt.reason
    again = peer.task()
    assert isinstance(again.ins, FitIns)
    assert int(str(again.ins.config[DROPPED])) > 2
    running.history()
    outcomes = [e for e in running.watch.of(ClientOutcome) if e.client_id == "slow"]
    assert [e.outcome for e in outcomes] == [Outcome.REJECTED]
    dropped = [e for step in running.watch.rounds() for e in step.buffer if not e.weight]
    assert [(each.client_id, each.weight) for each in dropped] == [("slow", 0.0)]
    record = load_record(tmp_path / JOB)
    kept = [each for step in record.rounds for each in step.buffer]
    assert len(kept) == 61
    assert ("slow", 0.0) in {(each["client_id"], each["weight"]) for each in kept}
    assert all(each.same for each in replayed(tmp_path, fed_buff(buffer_size=1)))
    shown = CliRunner().invoke(app, ["runs", "--runs-dir", str(tmp_path), "show", JOB])
    assert ", dropped)" in shown.output
    assert "client (staleness)" in shown.output


def test_one_that_fails_at_once_rests_while_the_others_work(memory_federation: Federation) -> None:
    class Failing(NumPyClient):
        times = 0

        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            Failing.times += 1
            raise ValueError("no data")

    serve(memory_federation, "a", "b", "c")
    memory_federation.serve("d", source=lambda context: Failing())
    running = memory_federation.run(fed_buff(), 40)
    running.history()
    seconds = sum(step.seconds for step in running.watch.rounds())
    assert Failing.times <= 1 + np.log2(1 + seconds)
    assert sum(step.fit.failed for step in running.watch.rounds()) == Failing.times
    assert any("d" in each.resting for each in running.watch.of(BufferChanged))


def test_where_everybody_fails_the_run_ends_in_words(
    memory_federation: Federation, tmp_path: Path
) -> None:
    mended = threading.Event()

    class Failing(NumPyClient):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            if not mended.is_set():
                raise ValueError("no data")
            return parameters, 1, {}

    memory_federation.serve("a", "b", source=lambda context: Failing())

    def start() -> RunningServer:
        strategy = fed_buff(max_failures=2, min_available_clients=2)
        return memory_federation.run(strategy, 2, runs_dir=tmp_path)

    with pytest.raises(EverybodyFails, match=r"each of the 2 clients .* failed 2 times .*no data"):
        start().history()
    mended.set()
    assert len(start().history().metrics_distributed_fit["staleness_max"]) == 2


def test_with_failures_not_accepted_such_a_step_leaves_the_model(
    memory_federation: Federation, tmp_path: Path
) -> None:
    class Once(NumPyClient):
        failed = False

        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            if not Once.failed:
                Once.failed = True
                raise ValueError("once")
            return [x + np.float32(1) for x in parameters], 1, {}

    memory_federation.serve("a", source=lambda context: Once())

    def strategy() -> FedBuff:
        return fed_buff(accept_failures=False, min_available_clients=1, concurrency=1)

    running = memory_federation.run(strategy(), 2, runs_dir=tmp_path, keep=ALL)
    running.history()
    assert [step.changed for step in running.watch.rounds()] == [False, True]
    assert "1 asks failed" in running.watch.rounds()[0].note
    assert [each.same for each in replayed(tmp_path, strategy())] == [True, True]


def _garbage(arrays: NDArrays) -> list[NDArrays]:
    (x,) = arrays
    return [
        [np.full_like(x, np.nan)],
        [x[:-1]],
        [x.astype(np.float64)],
        [],
        [x, x],
    ]


@pytest.mark.parametrize("kind", range(5))
def test_garbage_is_refused_named_and_does_not_count(
    memory_federation: Federation, kind: int
) -> None:
    class Garbage(NumPyClient):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            return _garbage(parameters)[kind], 1, {"staleness": -5.0, DROPPED: 10**6}

    serve(memory_federation, "a", "b", "c")
    memory_federation.serve("d", source=lambda context: Garbage())
    running = memory_federation.run(fed_buff(), 5)
    running.history()
    assert {each.client_id for step in running.watch.rounds() for each in step.buffer} <= {*"abc"}
    words = running.watch.words()["d"]
    assert set(words) == {Outcome.REJECTED}


def test_clients_come_and_go(memory_federation: Federation) -> None:
    """The first goes in the middle, others come: they are asked at once, and it goes on."""
    serve(memory_federation, "a", "b")
    running = memory_federation.run(
        fed_buff(buffer_size=1, min_available_clients=2, concurrency=3), 80, timeout=None
    )
    running.watch.wait_for(BufferChanged, lambda each: each.server_round > 2)
    serve(memory_federation, "c")
    running.watch.wait_for(BufferChanged, lambda each: "c" in each.busy)
    memory_federation.workers["a"].stop()
    running.history()


def test_what_cannot_be_is_said(memory_federation: Federation, tmp_path: Path) -> None:
    serve(memory_federation, *CLIENTS)
    late = memory_federation.run(fed_buff(), 1, job="late", late=LateReplies.NEXT_ROUND)
    with pytest.raises(NoLateReplies, match="late replies cannot count in a run without rounds"):
        late.history()
    memory_federation.run(fed_buff(), 1, runs_dir=tmp_path, keep=ALL).history()
    with pytest.raises(NeedsItsStrategy, match="name the server's app"):
        replayed(tmp_path, FedAvg())


def test_the_server_of_the_documentation_runs(memory_federation: Federation) -> None:
    names: dict[str, Any] = {}
    exec(program(ROOT / "docs" / "strategies.md", "buffered.py"), names)
    parts = names["server"]()
    memory_federation.serve(*CLIENTS)
    running = memory_federation.run(parts.strategy, config=parts.config)
    running.history()
    assert [len(step.buffer) for step in running.watch.rounds()] == [2] * 10
