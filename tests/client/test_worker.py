"""The worker: tasks in, replies out, whatever the user's code does and whoever else is there."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.client import Client, NumPyClient
from flmq.client.context import ClientContext
from flmq.client.serving.worker import WorkerOptions
from flmq.common import Config, FitIns, FitRes, Metrics, NDArrays, Parameters
from flmq.common.errors import ClientIdInUse, InvalidClientId
from flmq.observe.events import (
    ClientOutcome,
    ClientPresence,
    Outcome,
    Phase,
    PhaseClosed,
    RoundCounts,
    RunEnded,
)
from flmq.server import History, Server, SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.strategy import FedAvg
from flmq.transport import TASKS, Address, client_queue, client_topology, task_key
from flmq.wire import JobEnded, PresenceKind, Receipt, ReceiptOutcome, RollCall
from tests.end_to_end.federation import (
    JOB,
    OK,
    Federation,
    Nudge,
    fed_avg,
    in_thread,
    initial,
    nudge,
)
from tests.transport.rigs import PATIENCE, MemoryRig, eventually


class Gate(NumPyClient):
    """Trains until it is let go, and counts."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.calls = 0

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        self.calls += 1
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE)
        return parameters, 1, {}


class Only(FedAvg):
    """FedAvg that asks one client alone."""

    def __init__(self, client_id: str) -> None:
        super().__init__(
            fraction_evaluate=0.0, min_available_clients=2, initial_parameters=initial()
        )
        self.client_id = client_id

    def configure_fit(self, *arguments: Any) -> list[tuple[ClientProxy, FitIns]]:
        asked = super().configure_fit(*arguments)
        return [(proxy, ins) for proxy, ins in asked if proxy.cid == self.client_id]


def _fails_with(federation: Federation, client: Any) -> ClientFailure:
    """Run one round with a client that fails; its failure as the strategy gets it."""
    strategy = fed_avg(1)
    federation.serve("a", source=client)
    federation.run(strategy, timeout=None).history()
    (failure,) = strategy.failures
    assert isinstance(failure, ClientFailure)
    return failure


def test_a_fit_that_raises_is_reported_at_once_with_its_traceback(federation: Federation) -> None:
    class Broken(NumPyClient):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            raise KeyError("no such column")

    failure = _fails_with(federation, Broken())  # without a deadline: only a report ends it
    assert (failure.client_id, failure.outcome) == ("a", Outcome.FAILED)
    assert failure.reason == "KeyError: 'no such column'"
    assert 'raise KeyError("no such column")' in failure.detail
    server = federation.servers[0]
    outcome = server.watch.wait_for(ClientOutcome)
    assert (outcome.reason, outcome.detail) == (failure.reason, failure.detail)


class _Returns(Client):
    """Returns what it was made with."""

    def __init__(self, *returned: Any) -> None:
        self.returned = returned

    def fit(self, ins: FitIns) -> FitRes:
        if len(self.returned) == 1:
            return self.returned[0]  # type: ignore[no-any-return]
        return FitRes(*self.returned)


_NONE = Parameters([], "numpy.ndarray")


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (_Returns(3), "_Returns.fit returned a int"),
        (_Returns(None), "_Returns.fit returned a NoneType"),
        (_Returns(OK, _NONE, "many", {}), "num_examples"),
        (_Returns(OK, _NONE, 1.5, {}), "num_examples"),
        (_Returns(OK, _NONE, 2**70, {}), "num_examples"),
        (_Returns("fine", _NONE, 1, {}), "status"),
        (_Returns(OK, [np.zeros(2)], 1, {}), "a list as parameters"),
        (_Returns(OK, Parameters(["text"], "numpy.ndarray"), 1, {}), "a str as tensor 0"),  # type: ignore[list-item]
    ],
)
def test_what_cannot_be_sent_is_the_clients_failure_and_the_worker_lives(
    memory_federation: Federation, client: Client, said: str
) -> None:
    failure = _fails_with(memory_federation, client)
    assert failure.outcome is Outcome.FAILED
    assert failure.reason.startswith("InvalidReturnValue: "), failure.reason
    assert said in failure.reason
    assert not memory_federation.workers["a"].done.done()


@pytest.mark.parametrize("metrics", [{"when": [1, 2], "f1": 0.5}, None])
def test_what_was_trained_counts_whatever_its_metrics_are(
    memory_federation: Federation, metrics: Any
) -> None:
    class Measured(Client):
        def fit(self, ins: FitIns) -> FitRes:
            return FitRes(OK, ins.parameters, 1, metrics)

    memory_federation.serve("a", source=Measured())
    server = memory_federation.run(fed_avg(1), timeout=None)
    server.history()
    assert server.watch.words() == {"a": [Outcome.ACCEPTED]}


class _Unshown(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), _Unshown()]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_whatever_is_raised_off_the_main_thread_is_the_tasks_failure(
    memory_federation: Federation, raised: BaseException, threads: int
) -> None:
    class Raises(NumPyClient):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            raise raised

    strategy = fed_avg(2)
    running = memory_federation.worker(
        {"a": {}, "b": {}}, Raises(), WorkerOptions(heartbeat=1.0, threads=threads)
    )
    memory_federation.run(strategy, timeout=None).history()
    assert [str(f).split(": ")[2] for f in strategy.failures] == [type(raised).__name__] * 2
    assert not running.done.done()
    running.stop()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_thread_of_a_worker_that_ends_by_a_fault_ends_the_worker(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def broken(*_: object) -> bool:
        raise ZeroDivisionError("a fault of flmq")

    monkeypatch.setattr("flmq.client.tasks.task_executor.TaskExecutor.do", broken)
    running = memory_federation.worker(
        {"a": {}, "b": {}}, nudge, WorkerOptions(heartbeat=1.0, threads=threads)
    )
    memory_federation.run(fed_avg(2), timeout=2.0)
    with pytest.raises(ZeroDivisionError, match="a fault of flmq"):
        running.done.result(PATIENCE)


def test_a_factory_that_raises_fails_its_tasks(memory_federation: Federation) -> None:
    def factory(context: ClientContext) -> Client:
        raise OSError("no data folder")

    failure = _fails_with(memory_federation, factory)
    assert failure.reason == "OSError: no data folder"
    assert 'raise OSError("no data folder")' in failure.detail


def test_the_factory_knows_job_id_and_properties_and_has_a_folder(
    memory_federation: Federation, tmp_path: Path
) -> None:
    contexts: list[ClientContext] = []

    def factory(context: ClientContext) -> Client:
        contexts.append(context)
        return Nudge(context.client_id).to_client()

    memory_federation.serve(
        "a", source=factory, properties={"gpu": True}, options=WorkerOptions(state_dir=tmp_path)
    )
    memory_federation.run(fed_avg(1), rounds=2).history()
    (context,) = contexts  # one client a job, made when first needed
    assert (context.job, context.client_id, context.properties) == ("job", "a", {"gpu": True})
    assert context.state_dir is not None
    assert context.state_dir.is_dir()
    assert context.state_dir.is_relative_to(tmp_path / "a")


@pytest.mark.parametrize("client_id", ["", "x" * 65, "a..b", ".a", "a b", "ü", "a/b", "!all"])
def test_an_id_that_does_not_fit_a_queues_name_is_refused(
    memory_federation: Federation, client_id: str
) -> None:
    with pytest.raises(InvalidClientId) as info:
        memory_federation.worker({client_id: {}}, nudge)
    assert info.value.client_id == client_id


def test_an_id_that_a_live_worker_has_is_refused_and_free_afterwards(
    federation: Federation,
) -> None:
    federation.serve("a")
    federation.run(fed_avg(1), job="first").history()
    second = federation.worker({"a": {}}, nudge)
    with pytest.raises(ClientIdInUse) as info:
        second.done.result(PATIENCE)
    assert info.value.client_id == "a"
    federation.run(fed_avg(1), job="second").history()  # the first is unharmed
    federation.workers["a"].stop()
    federation.serve("a")
    federation.run(fed_avg(1), job="third").history()


def test_a_task_that_comes_again_is_trained_on_once(federation: Federation) -> None:
    """Connections break while it trains: the task is delivered again, and its reply counts."""
    gate = Gate()
    federation.serve("a", source=gate)
    server = federation.run(fed_avg(1), rounds=2, timeout=None)
    assert gate.begun.acquire(timeout=PATIENCE)
    federation.rig.cut()
    witness = federation.rig.witness()
    consumed = client_queue("a")
    eventually(lambda: (info := witness.inspect_queue(consumed)) is not None and info.consumers > 0)
    gate.go.release()
    assert gate.begun.acquire(timeout=PATIENCE)  # of the second round: the first is done
    gate.go.release()
    server.history()
    assert gate.calls == 2
    counts = [closed.fit for closed in server.watch.rounds()]
    assert counts == [RoundCounts(asked=1, accepted=1)] * 2
    eventually(lambda: _empty(federation, "a"))


def test_what_the_broker_delivers_twice_is_trained_on_and_counted_once(
    memory_federation: Federation,
) -> None:
    gate = Gate()
    for _ in range(10):
        gate.go.release()
    memory_federation.serve("a", source=gate)
    assert isinstance(memory_federation.rig, MemoryRig)
    memory_federation.rig.broker.duplicate(10_000)
    server = memory_federation.run(fed_avg(1), rounds=3, timeout=None)
    server.history()
    assert gate.calls == 3
    assert [r.fit.accepted for r in server.watch.rounds()] == [1, 1, 1]
    assert set(server.watch.words()["a"]) == {Outcome.ACCEPTED, Outcome.DUPLICATE}
    assert server.watch.words()["a"].count(Outcome.ACCEPTED) == 3


def _empty(federation: Federation, client_id: str) -> bool:
    info = federation.rig.witness().inspect_queue(client_queue(client_id))
    return info is not None and info.messages_ready == 0


def test_a_late_reply_is_named_at_both_ends(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    federation.serve("slow", source=gate)
    peer = federation.peer("quick")
    server = federation.run(fed_avg(2), rounds=2, timeout=1.0)
    assert gate.begun.acquire(timeout=PATIENCE)
    peer.reply(peer.task())
    server.watch.wait_for(PhaseClosed)
    gate.go.release()
    late = server.watch.wait_for(ClientOutcome, lambda o: o.outcome is Outcome.LATE)
    assert (late.client_id, late.server_round) == ("slow", 1)
    assert late.reason.endswith("s after the round closed")
    eventually(lambda: "late and was not counted" in caplog.text)
    gate.go.release()
    server.history()
    assert server.watch.words(1)["slow"] == [Outcome.SILENT, Outcome.LATE]


def test_a_worker_serves_two_jobs_at_once(federation: Federation) -> None:
    federation.serve("a", "b")
    alone = federation.run(fed_avg(2), rounds=3, job="alone").model()
    first = federation.run(fed_avg(2), rounds=3, job="first")
    second = federation.run(fed_avg(2), rounds=3, job="second")
    assert first.model() == second.model() == alone


def test_the_heartbeat_that_a_server_asks_for_is_kept(memory_federation: Federation) -> None:
    """A worker with a long heartbeat of its own is not thought away by a server in a hurry."""
    memory_federation.serve("a", options=WorkerOptions(heartbeat=30.0))
    peer = memory_federation.peer("hand")
    server = memory_federation.run(fed_avg(2), heartbeat=0.1)
    task = peer.task()
    threading.Event().wait(2.0)  # 2.5 heartbeats and a second's grace are 1.25 s
    peer.reply(task)
    server.history()
    left = [p for p in server.watch.of(ClientPresence) if (p.client_id, p.status) == ("a", "away")]
    assert left == []


def test_a_client_that_says_bye_or_falls_silent_is_away_and_back_when_it_speaks(
    federation: Federation,
) -> None:
    first, second = federation.peer("first"), federation.peer("second")
    server = federation.run(fed_avg(2))
    tasks = first.task(), second.task()
    first.hello(PresenceKind.BYE)
    gone = server.watch.wait_for(ClientPresence, lambda p: p.status == "away")
    assert (gone.client_id, gone.reason, gone.online) == ("first", "said bye", 1)
    second.hello(PresenceKind.HEARTBEAT, heartbeat=0.1)
    gone = server.watch.wait_for(ClientPresence, lambda p: p.status == "away", count=2)
    assert gone.client_id == "second"
    assert gone.reason.startswith("no heartbeat for")
    second.reply(tasks[1])  # a reply is a sign of life
    back = server.watch.wait_for(ClientPresence, lambda p: p.reason == "replied")
    assert (back.client_id, back.status, back.online) == ("second", "online", 1)
    first.reply(tasks[0])
    server.history()


# -- its end ---------------------------------------------------------------------------------


def test_once_ends_with_the_first_job_that_ends(federation: Federation) -> None:
    federation.serve("a", options=WorkerOptions(once=True))
    federation.run(fed_avg(1)).history()
    federation.workers["a"].done.result(PATIENCE)


def test_once_ends_also_for_a_client_that_was_never_asked(federation: Federation) -> None:
    federation.serve("idle", options=WorkerOptions(once=True))
    federation.serve("a")
    strategy = fed_avg(1, fraction_fit=0.5, min_available_clients=2)
    federation.run(strategy, rounds=1).history()
    federation.workers["idle"].done.result(PATIENCE)


def test_once_stays_in_a_job_that_it_works_in_when_another_ends(federation: Federation) -> None:
    gate = Gate()
    federation.serve("a", source=gate, options=WorkerOptions(once=True))
    federation.serve("b")
    mine = federation.run(fed_avg(1, min_available_clients=2, fraction_fit=1.0), 2, job="mine")
    assert gate.begun.acquire(timeout=PATIENCE)
    other = federation.run(Only("b"), job="other")
    other.history()
    gate.go.release()
    assert gate.begun.acquire(timeout=PATIENCE)  # of the second round: it has not left
    gate.go.release()
    mine.history()
    assert mine.watch.words()["a"] == [Outcome.ACCEPTED] * 2
    federation.workers["a"].done.result(PATIENCE)


def test_once_ends_when_the_job_fails(federation: Federation) -> None:
    class Wrong(Exception):
        pass

    def fails(server_round: int) -> Config:
        if server_round == 2:
            raise Wrong
        return {}

    federation.serve("a", options=WorkerOptions(once=True))
    server = federation.run(fed_avg(1, on_fit_config_fn=fails), rounds=2)
    with pytest.raises(Wrong):
        server.history()
    assert server.watch.wait_for(RunEnded).error == "Wrong"
    federation.workers["a"].done.result(PATIENCE)


def test_what_an_earlier_job_left_in_the_queue_does_not_end_a_fresh_worker(
    federation: Federation,
) -> None:
    """The end of a job lies in the queue, with or without the roll call of its beginning."""
    peer = federation.peer("other")
    peer.transport.declare(client_topology("a"))
    queue = Address(TASKS, task_key("main", "a"))
    peer.send(queue, RollCall("earlier", 7, 30.0))
    peer.send(queue, JobEnded("earlier", 7, "all rounds done"))
    peer.send(queue, JobEnded("long-ago", 3, "all rounds done"))
    federation.serve("a", options=WorkerOptions(once=True))
    server = federation.run(fed_avg(2))
    peer.reply(peer.task())
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=2)
    federation.workers["a"].done.result(PATIENCE)


def test_a_task_of_an_earlier_server_of_the_job_is_dropped(memory_federation: Federation) -> None:
    gate = Gate()
    for _ in range(5):
        gate.go.release()
    memory_federation.serve("a", source=gate)
    peer = memory_federation.peer("hand")
    server = memory_federation.run(fed_avg(2), rounds=1)
    task = peer.task()
    stale = replace(task, client_id="a", epoch=task.epoch - 1, task_id="stale")
    peer.send(Address(TASKS, task_key("main", "a")), stale)
    peer.reply(task)
    server.history()
    eventually(lambda: _empty(memory_federation, "a"))
    assert gate.calls == 1


def test_a_server_that_begins_the_job_anew_is_heard_though_its_clock_is_behind(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    federation.serve("a")
    peer = federation.peer("hand")
    address, ahead = Address(TASKS, task_key("main", "a")), round(time.time() * 1000) + 3_600_000
    peer.send(address, RollCall(JOB, ahead, 1.0, "earlier"))
    server = federation.run(fed_avg(2), rounds=2)
    for _ in range(2):
        peer.reply(peer.task())
    server.history()
    assert server.watch.words()["a"] == [Outcome.ACCEPTED] * 2
    said = [each for each in caplog.records if "was begun anew by another server" in each.message]
    assert [each.levelname for each in said] == ["WARNING"]


def test_what_is_not_done_of_an_earlier_run_is_dropped_and_what_is_done_is_kept(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    memory_federation.serve("a", source=gate)
    worker = memory_federation.workers["a"].worker
    peer = memory_federation.peer("hand")
    server = memory_federation.run(fed_avg(2))
    task, address = peer.task(), Address(TASKS, task_key("main", "a"))

    def old(task_id: str) -> None:
        peer.send(address, replace(task, client_id="a", task_id=task_id, run="earlier"))

    old("done")
    gate.go.release()
    gate.go.release()
    eventually(lambda: worker._tasks["a"].reply_of("done") is not None)
    for task_id in ("in-training", "waiting"):
        old(task_id)
    eventually(lambda: gate.calls == 3)
    peer.send(address, RollCall("job", task.epoch, 1.0, "earlier"))
    peer.send(address, RollCall("job", task.epoch, 1.0, task.run))
    eventually(lambda: "2 tasks of its earlier run are dropped" in caplog.text)
    assert worker._tasks["a"].reply_of("done") is not None
    gate.go.release()
    eventually(lambda: worker._backlog._arrived == {})
    assert gate.calls == 3
    peer.reply(task)
    server.history()


def test_what_is_noted_of_a_task_goes_with_it(memory_federation: Federation) -> None:
    memory_federation.serve("a")
    peer = memory_federation.peer("hand")
    server = memory_federation.run(fed_avg(2), rounds=1)
    task = peer.task()
    address = Address(TASKS, task_key("main", "a"))
    worker = memory_federation.workers["a"].worker
    for _ in range(2):  # the second time it is settled
        peer.send(address, replace(task, client_id="a", task_id="again"))
        peer.send(address, Receipt("again", JOB, 1, task.phase, "a", ReceiptOutcome.DUPLICATE))
        eventually(lambda: "again" in worker._tasks["a"]._settled)  # type: ignore[attr-defined]
    eventually(lambda: _empty(memory_federation, "a"))
    peer.reply(task)
    server.history()
    eventually(lambda: worker._backlog._arrived == {})


def test_disconnecting_all_clients_ends_those_that_came_for_one_job(
    federation: Federation,
) -> None:
    class Polite(Server):
        def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
            result = super().fit(num_rounds, timeout)
            self.disconnect_all_clients(timeout=PATIENCE)
            for client_id in "ab":  # the job has not ended yet
                federation.workers[client_id].done.result(PATIENCE)
            return result

    federation.serve("a", "b", options=WorkerOptions(once=True))
    server = Polite(client_manager=SimpleClientManager(), strategy=fed_avg(2))
    running = federation.run(server=server, timeout=None)
    running.history()
    closed = running.watch.wait_for(PhaseClosed, lambda p: p.phase is Phase.RECONNECT)
    assert closed.counts == RoundCounts(asked=2, accepted=2)


def test_stop_from_any_thread_ends_after_the_task_at_hand(federation: Federation) -> None:
    gate = Gate()
    federation.serve("a", source=gate)
    server = federation.run(fed_avg(1), timeout=None)
    assert gate.begun.acquire(timeout=PATIENCE)
    worker = federation.workers["a"]
    in_thread(worker.worker.stop).result(PATIENCE)
    assert not worker.done.done()
    gate.go.release()
    worker.done.result(PATIENCE)
    server.history()
    assert server.watch.words() == {"a": [Outcome.ACCEPTED]}
