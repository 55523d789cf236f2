"""The coordinator: whom a round waits for and for how long, and who may be in charge of a job."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from flmq.common import (
    EvaluateIns,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Metrics,
    NDArrays,
    Parameters,
    Scalar,
    Status,
    ndarrays_to_parameters,
)
from flmq.common.errors import (
    InvalidJobName,
    JobInUse,
    NoInitialParameters,
    NotEnoughClients,
    ZeroWeight,
)
from flmq.common.typing import Code
from flmq.observe.events import (
    ClientOutcome,
    ClientPresence,
    Outcome,
    PhaseClosed,
    PhaseOpened,
    RoundCounts,
    RunEnded,
)
from flmq.server import ClientManager, ServerConfig, SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.presence.watcher import PresenceWatcher
from flmq.server.replies.reply_loop import NobodyListens, ReplyLoop
from flmq.server.replies.uploading import Uploading
from flmq.transport import client_queue, client_topology, presence_queue, replies_queue
from flmq.wire import Failure, FailureKind, JobEnded, PresenceKind, ReceiptOutcome, Task
from tests.end_to_end.federation import OK, Federation, Keeping, Nudge, fed_avg, initial
from tests.server.proxies import IdleProxy
from tests.transport.rigs import PATIENCE, eventually

INITIAL = b"".join(initial().tensors)


def _failed(reason: str = "no data") -> Failure:
    return Failure(FailureKind.EXCEPTION, "ValueError", reason)


# -- whom a round waits for ------------------------------------------------------------------


def test_a_silent_client_is_waited_for_until_the_deadline(federation: Federation) -> None:
    strategy = fed_avg(2)
    federation.serve("a")
    peer = federation.peer("silent")
    server = federation.run(strategy, timeout=1.0)
    peer.task()
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=1, silent=1)
    closed = server.watch.wait_for(PhaseClosed)
    assert closed.reason == "deadline"
    assert 1.0 <= closed.seconds < 5.0
    (failure,) = strategy.failures
    assert isinstance(failure, ClientFailure)
    assert (failure.client_id, failure.outcome) == ("silent", Outcome.SILENT)


def test_a_task_that_came_to_nobody_in_time_does_not_wait_for_its_client(
    federation: Federation,
) -> None:
    """With the round, its tasks expire in the queues of clients that are away."""
    federation.serve("a")
    peer = federation.peer("away")
    server = federation.run(fed_avg(2), timeout=1.0)
    peer.consumer.close()
    server.history()
    assert server.watch.words()["away"] == [Outcome.SILENT]
    peer.consume()
    while not isinstance(left := peer.next(object), JobEnded):
        assert not isinstance(left, Task)


def test_a_round_closes_at_its_target_and_the_others_are_late(federation: Federation) -> None:
    peers = [federation.peer(name) for name in ("a", "b", "c")]
    config = ServerConfig(num_rounds=2, round_timeout=None, target_results=2)
    server = federation.run(fed_avg(3), config=config)
    tasks = [peer.task() for peer in peers]
    for peer, task in zip(peers[:2], tasks[:2], strict=True):
        peer.reply(task)
    second = [peer.task() for peer in peers]  # the next round begins without the third
    peers[2].reply(tasks[2])
    assert peers[2].receipt().outcome is ReceiptOutcome.LATE
    for peer, task in zip(peers[1:], second[1:], strict=True):
        peer.reply(task)
    server.history()
    counts = RoundCounts(asked=3, accepted=2, silent=1)
    assert [r.fit for r in server.watch.rounds()] == [counts, counts]
    assert {p.reason for p in server.watch.of(PhaseClosed)} == {"enough answered (2)"}


def test_too_few_results_leave_the_model_and_the_run_goes_on(federation: Federation) -> None:
    peers = [federation.peer(name) for name in ("a", "b")]
    config = ServerConfig(num_rounds=2, round_timeout=None, min_results=2)
    server = federation.run(fed_avg(2), config=config)
    for result in (_failed(), None):
        for peer, res in zip(peers, (None, result), strict=True):
            peer.reply(peer.task(), res)
    server.history()
    first, second = server.watch.rounds()
    assert "1 results, 2 needed: the model stays as it was" in first.note
    assert "client b: failed: ValueError: no data" in first.note
    assert second.note == ""
    assert second.fit.accepted == 2


def test_a_round_in_which_all_fail_leaves_the_model(federation: Federation) -> None:
    peers = [federation.peer(name) for name in ("a", "b")]
    server = federation.run(fed_avg(2), rounds=2, timeout=None)
    for _ in range(2):
        for peer in peers:
            peer.reply(peer.task(), _failed())
    server.history()
    assert server.watch.model() == INITIAL
    assert [r.fit.failed for r in server.watch.rounds()] == [2, 2]
    assert all("the model stays as it was" in r.note for r in server.watch.rounds())


def test_a_client_without_a_queue_is_not_waited_for(federation: Federation) -> None:
    class Gone(SimpleClientManager):
        """Believes that a client is there which has never been."""

        def all(self) -> dict[str, ClientProxy]:
            return super().all()

        def sample(self, num_clients: int, *args: Any, **kwargs: Any) -> list[ClientProxy]:
            (proxy,) = super().sample(1)
            ghost = type(proxy)("ghost", proxy._phase_runner)  # type: ignore[attr-defined, call-arg]
            return [proxy, ghost]

    strategy = fed_avg(1)
    federation.serve("a")
    server = federation.run(strategy, timeout=None, client_manager=Gone())
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=1, unroutable=1)
    (failure,) = strategy.failures
    assert isinstance(failure, ClientFailure)
    assert (failure.client_id, failure.outcome) == ("ghost", Outcome.UNROUTABLE)


def test_a_client_that_is_there_is_asked_again_while_it_has_no_queue(
    federation: Federation,
) -> None:
    """It was deleted under its client, who makes it anew."""
    peer = federation.peer("peer")
    server = federation.run(fed_avg(1), rounds=2, timeout=None)
    first = peer.task()
    peer.consumer.close()
    peer.transport.delete_queue(client_queue("peer"))
    peer.reply(first)
    server.watch.wait_for(PhaseOpened, lambda opened: opened.server_round == 2)
    peer.transport.declare(client_topology("peer"))
    peer.consume()
    second = peer.task()
    assert second.server_round == 2
    peer.reply(second)
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=1, accepted=1)] * 2


def test_a_round_that_asks_nobody_is_noted(memory_federation: Federation) -> None:
    memory_federation.serve("a")
    strategy = fed_avg(1)
    strategy.configure_fit = lambda *_: []  # type: ignore[method-assign]
    server = memory_federation.run(strategy, rounds=2)
    server.history()
    assert [r.fit.asked for r in server.watch.rounds()] == [0, 0]
    assert server.watch.rounds()[0].note == "nobody was asked: configure_fit chose no clients"
    assert server.watch.model() == INITIAL


def test_an_aggregation_that_cannot_be_leaves_the_model(memory_federation: Federation) -> None:
    class Weightless(Keeping):
        def aggregate_fit(self, *args: Any) -> Any:
            raise ZeroWeight("every weight is zero")

    memory_federation.serve("a")
    strategy = Weightless(
        fraction_evaluate=0.0,
        min_fit_clients=1,
        min_available_clients=1,
        initial_parameters=initial(),
    )
    server = memory_federation.run(strategy, rounds=2)
    server.history()
    assert [r.note for r in server.watch.rounds()] == [
        "the model stays as it was: every weight is zero"
    ] * 2
    assert server.watch.model() == INITIAL


def test_an_error_of_the_strategy_ends_the_run_with_its_queues(federation: Federation) -> None:
    class Wrong(Exception):
        pass

    def wrong(server_round: int, tensors: NDArrays, config: dict[str, Scalar]) -> Any:
        if server_round == 1:
            raise Wrong("evaluate_fn is broken")

    federation.serve("a")
    server = federation.run(fed_avg(1, evaluate_fn=wrong))
    with pytest.raises(Wrong, match="evaluate_fn is broken"):
        server.history()
    assert server.watch.wait_for(RunEnded).error == "evaluate_fn is broken"
    witness = federation.rig.witness()
    eventually(lambda: witness.inspect_queue(replies_queue("job")) is None)
    eventually(lambda: witness.inspect_queue(presence_queue("job")) is None)


# -- who is there ----------------------------------------------------------------------------


def test_waiting_in_vain_names_who_is_away(federation: Federation) -> None:
    manager = SimpleClientManager(wait_timeout=1.0)
    peer = federation.peer("away")
    server = federation.run(fed_avg(2), client_manager=manager)
    server.watch.wait_for(ClientPresence, lambda p: p.client_id == "away")
    peer.hello(PresenceKind.BYE)
    with pytest.raises(NotEnoughClients) as info:
        server.history()
    assert (info.value.wanted, info.value.have, info.value.away) == (2, 0, ("away",))
    assert "away" in str(server.watch.wait_for(RunEnded).error)


def test_a_client_that_comes_later_is_waited_for(federation: Federation) -> None:
    federation.serve("a")
    server = federation.run(fed_avg(2))
    server.watch.wait_for(ClientPresence, lambda p: p.client_id == "a")
    federation.serve("b")
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=2)


def test_clients_are_chosen_by_seed_round_and_id(federation: Federation) -> None:
    names = [f"c{i}" for i in range(6)]

    def asked(seed: int, job: str) -> list[tuple[str, ...]]:
        strategy = fed_avg(6, min_fit_clients=1, fraction_fit=0.5)
        server = federation.run(strategy, rounds=3, seed=seed, job=job)
        server.history()
        return [phase.asked for phase in server.watch.of(PhaseOpened)]

    federation.serve(*names[:3])
    federation.serve(*reversed(names[3:]))
    first = asked(1, "first")
    assert all(len(clients) == 3 for clients in first)
    assert len(set(first)) > 1  # not the same in every round
    assert asked(1, "second") == first
    assert asked(2, "third") != first


def test_waiting_for_clients_does_not_change_whom_one_chooses() -> None:
    """Else the choice would depend on whether they were there already."""
    manager = SimpleClientManager()
    for name in "abcdefgh":
        manager.register(IdleProxy(name))
    manager.begin(1, 1, "fit")
    chosen = manager.sample(3)
    manager.begin(1, 1, "fit")
    assert manager.sample(0, 8) == []
    assert manager.sample(3) == chosen


# -- questions besides fit and evaluate ------------------------------------------------------


class _Telling(Nudge):
    def get_properties(self, config: dict[str, Scalar]) -> dict[str, Scalar]:
        return {"echo": config["word"], "id": self.client_id}

    def get_parameters(self, config: dict[str, Scalar]) -> NDArrays:
        return [np.arange(3, dtype=np.int64)]


def test_properties_and_parameters_come_through_the_queue(federation: Federation) -> None:
    asked: dict[str, Any] = {}

    class Asking(Keeping):
        def configure_fit(
            self, server_round: int, parameters: Parameters, client_manager: ClientManager
        ) -> list[tuple[ClientProxy, FitIns]]:
            assert client_manager.wait_for(2, PATIENCE)
            for cid, client in client_manager.all().items():
                word = GetPropertiesIns({"word": "hello"})
                asked[cid] = client.get_properties(word, timeout=30.0)
                # The same question twice in a round is two tasks.
                assert client.get_properties(word, timeout=30.0) == asked[cid]
            client = client_manager.all()["a"]
            asked["parameters"] = client.get_parameters(GetParametersIns({}), timeout=30.0)
            fit = client.fit(FitIns(parameters, {}), timeout=30.0)
            assert isinstance(fit, FitRes)
            measured = client.evaluate(EvaluateIns(parameters, {}), timeout=30.0)
            asked["loss"] = measured.loss
            return super().configure_fit(server_round, parameters, client_manager)

    federation.serve("a", "b", source=lambda context: _Telling(context.client_id))
    strategy = Asking(
        fraction_evaluate=0.0,
        min_fit_clients=2,
        min_available_clients=2,
        initial_parameters=initial(),
    )
    federation.run(strategy).history()
    for cid in "ab":
        assert asked[cid] == GetPropertiesRes(OK, {"echo": "hello", "id": cid})
    expected = ndarrays_to_parameters([np.arange(3, dtype=np.int64)])
    assert asked["parameters"] == GetParametersRes(OK, expected)
    assert asked["loss"] > 0


def test_a_question_has_a_deadline_and_a_failure_is_raised(federation: Federation) -> None:
    peer = federation.peer("peer")
    raised: list[ClientFailure] = []
    told: list[Status] = []

    class Asking(Keeping):
        def configure_fit(
            self, server_round: int, parameters: Parameters, client_manager: ClientManager
        ) -> list[tuple[ClientProxy, FitIns]]:
            assert client_manager.wait_for(1, PATIENCE)
            (client,) = client_manager.all().values()
            for timeout in (0.3, None):
                with pytest.raises(ClientFailure) as info:
                    client.get_properties(GetPropertiesIns({}), timeout=timeout)
                raised.append(info.value)
            told.append(client.get_properties(GetPropertiesIns({}), timeout=None).status)
            return []

    server = federation.run(Asking(fraction_evaluate=0.0, initial_parameters=initial()))
    peer.task()  # no answer
    peer.reply(peer.task(), _failed("no properties"))
    not_implemented = Status(Code.GET_PROPERTIES_NOT_IMPLEMENTED, "none here")
    peer.reply(peer.task(), GetPropertiesRes(not_implemented, {}))
    server.history()
    assert [failure.outcome for failure in raised] == [Outcome.SILENT, Outcome.FAILED]
    assert raised[1].reason == "ValueError: no properties"
    assert told == [not_implemented]


def test_the_initial_parameters_are_asked_of_one_client(federation: Federation) -> None:
    federation.serve("a", "b", source=lambda context: _Telling(context.client_id))

    def metrics(pairs: list[tuple[int, Metrics]]) -> Metrics:
        return {}

    strategy = fed_avg(2, initial_parameters=None, fit_metrics_aggregation_fn=metrics)
    server = federation.run(strategy, rounds=0)
    server.history()
    expected = ndarrays_to_parameters([np.arange(3, dtype=np.int64)])
    assert server.watch.model() == b"".join(expected.tensors)
    assert len(server.watch.of(ClientOutcome)) == 1


def test_without_initial_parameters_the_run_says_how_to_give_some(
    memory_federation: Federation,
) -> None:
    memory_federation.serve("a")
    server = memory_federation.run(fed_avg(1, initial_parameters=None))
    with pytest.raises(NoInitialParameters, match="GET_PARAMETERS_NOT_IMPLEMENTED"):
        server.history()


# -- who is in charge ------------------------------------------------------------------------


def test_a_job_has_one_server_and_is_free_after_it(federation: Federation) -> None:
    peer = federation.peer("peer")
    first = federation.run(fed_avg(1))
    task = peer.task()
    federation.peers.clear()  # the refused one calls no roll
    with pytest.raises(JobInUse) as info:
        federation.run(fed_avg(1)).history()
    assert info.value.job == "job"
    peer.reply(task)
    first.history()  # unharmed
    federation.peers.append(peer)
    third = federation.run(fed_avg(1))
    peer.reply(peer.task())
    third.history()


@pytest.mark.parametrize("job", ["", "x" * 65, "a.b", "a b", "#", "*"])
def test_a_job_name_that_fits_no_queue_is_refused(memory_federation: Federation, job: str) -> None:
    with pytest.raises(InvalidJobName):
        memory_federation.run(fed_avg(1), job=job).history()


def test_a_reply_to_an_earlier_job_of_the_name_is_refused(federation: Federation) -> None:
    peer = federation.peer("peer")
    first = federation.run(fed_avg(1))
    task = peer.task()
    peer.reply(task)
    first.history()
    second = federation.run(fed_avg(1))
    fresh = peer.task()
    peer.reply(task)
    (incoming,) = federation.dead(1)
    assert "answers a task that nobody sent" in str(incoming.message.headers["x-flmq-reason"])
    peer.reply(fresh)
    second.history()
    assert second.watch.words() == {"peer": [Outcome.ACCEPTED]}


def test_an_observer_that_cannot_write_says_so_on_one_line(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    def observer(event: object) -> None:
        if isinstance(event, RunEnded):
            raise OSError(28, "No space left on device", "history.json")

    memory_federation.serve("a")
    memory_federation.run(fed_avg(1), observers=(observer,)).history()
    [said] = [each for each in caplog.records if "an observer" in each.message]
    assert "RunEnded: [Errno 28] No space left on device: 'history.json'" in said.message
    assert said.exc_info is None


def test_an_observer_that_raises_or_is_slow_harms_nobody(memory_federation: Federation) -> None:
    memory_federation.serve("a")
    seen: list[object] = []

    def observer(event: object) -> None:
        seen.append(event)
        time.sleep(0.01)
        raise RuntimeError("a broken view")

    server = memory_federation.run(fed_avg(1), rounds=2, observers=(observer,))
    server.history()
    assert seen == server.watch.events


@pytest.mark.parametrize("fault", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("opened", [False, True])
def test_replies_that_can_no_longer_be_taken_in_end_the_run(
    memory_federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    opened: bool,
    fault: type[BaseException],
) -> None:
    """Whatever the fault, and also before the round is there: nobody waits for what none hears."""
    breaks = threading.Event()
    give_up_stale, open_phase = Uploading.give_up_stale, ReplyLoop.open

    def faulty(self: Uploading) -> None:
        if breaks.is_set():
            raise fault("a fault of ours")
        give_up_stale(self)

    def dawdling(self: ReplyLoop, *args: Any) -> None:
        if not opened:
            breaks.set()
            eventually(lambda: "replies can no longer be taken in" in caplog.text)
        open_phase(self, *args)

    monkeypatch.setattr(Uploading, "give_up_stale", faulty)
    monkeypatch.setattr(ReplyLoop, "open", dawdling)
    peer = memory_federation.peer("a")
    server = memory_federation.run(fed_avg(1), timeout=None)
    if opened:
        peer.task()
        breaks.set()
    with pytest.raises(NobodyListens, match=f"{fault.__name__}: a fault of ours"):
        server.history()
    assert "replies can no longer be taken in" in caplog.text


def test_an_interrupt_while_clients_are_waited_for_is_told_to_those_that_are_here(
    federation: Federation,
) -> None:
    class Interrupted(SimpleClientManager):
        def wait_for(self, num_clients: int, timeout: float = 0.0) -> bool:
            assert super().wait_for(1, PATIENCE)
            raise KeyboardInterrupt

    peer = federation.peer("a")
    server = federation.run(fed_avg(1), client_manager=Interrupted(), clients=2)
    with pytest.raises(KeyboardInterrupt):
        server.history()
    assert server.watch.wait_for(RunEnded).error == "stopped after round 0"
    assert peer.next(JobEnded).reason == "stopped after round 0"


def test_a_server_that_nobody_tells_of_clients_does_not_wait_for_them(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: PresenceWatcher) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(PresenceWatcher, "tick", breaks)
    server = memory_federation.run(fed_avg(1), timeout=None)
    with pytest.raises(NobodyListens, match="ZeroDivisionError: a fault of ours"):
        server.history()
