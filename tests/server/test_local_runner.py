"""A server made by hand, with proxies that are objects of this process."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from flmq.common import (
    Code,
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    ReconnectIns,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.observe.events import Outcome
from flmq.server import Server, SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from tests.end_to_end.federation import OK, Keeping, Nudge, fed_avg, initial


class Local(ClientProxy):
    """Calls a client that is here."""

    def __init__(self, cid: str) -> None:
        super().__init__(cid)
        self.client = Nudge(cid).to_client()
        self.timeouts: list[float | None] = []
        self.left: list[int | None] = []

    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None = None
    ) -> GetPropertiesRes:
        return self.client.get_properties(ins)

    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None = None
    ) -> GetParametersRes:
        return GetParametersRes(OK, initial())

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        self.timeouts.append(timeout)
        return self.client.fit(ins)

    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None = None
    ) -> EvaluateRes:
        return self.client.evaluate(ins)

    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None = None
    ) -> DisconnectRes:
        self.left.append(ins.seconds)
        return DisconnectRes("leaving")


def _server(*proxies: ClientProxy, **options: Any) -> tuple[Server, Keeping]:
    manager = SimpleClientManager(seed=1)
    for proxy in proxies:
        manager.register(proxy)
    strategy = fed_avg(len(proxies), **options)
    return Server(client_manager=manager, strategy=strategy), strategy


def test_a_server_by_hand_runs_rounds_over_its_proxies() -> None:
    proxies = [Local(name) for name in "abc"]
    server, _ = _server(*proxies, fraction_evaluate=1.0)
    history, seconds = server.fit(num_rounds=2, timeout=12.5)
    assert seconds > 0
    assert [server_round for server_round, _ in history.losses_distributed] == [1, 2]
    assert proxies[0].timeouts == [12.5, 12.5]
    assert server.rounds_closed == 2


def test_its_model_is_that_of_a_run_over_queues() -> None:
    from flmq.server import ServerConfig
    from flmq.simulation import start_simulation
    from tests.end_to_end.federation import Watch, nudge

    server, _ = _server(*(Local(name) for name in "abc"))
    server.fit(num_rounds=3, timeout=None)
    watch = Watch()
    start_simulation(
        client_fn=nudge,
        clients_ids=["a", "b", "c"],
        config=ServerConfig(num_rounds=3),
        strategy=fed_avg(3),
        observers=(watch,),
    )
    assert b"".join(server.parameters.tensors) == watch.model()


def test_the_initial_parameters_come_of_a_client_where_the_strategy_has_none() -> None:
    server, _ = _server(Local("a"), initial_parameters=None)
    server.fit(num_rounds=0, timeout=None)
    assert server.parameters == initial()


class Broken(Local):
    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        raise ConnectionError("it has gone")


class Refusing(Local):
    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        return FitRes(Status(Code.FIT_NOT_IMPLEMENTED, "not here"), initial(), 0, {})


class Wrong(Local):
    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        tensors = parameters_to_ndarrays(ins.parameters)
        return FitRes(OK, ndarrays_to_parameters(tensors[:1]), 1, {})


class Nothing(Local):
    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        return None  # type: ignore[return-value]


def test_proxies_that_raise_refuse_or_return_the_wrong_thing_are_failures() -> None:
    good = Local("e")
    server, strategy = _server(Broken("a"), Refusing("b"), Wrong("c"), Nothing("d"), good)
    server.fit(num_rounds=1, timeout=None)
    broken, refusing, wrong, nothing = strategy.failures
    assert isinstance(broken, ClientFailure)
    assert (broken.client_id, broken.outcome) == ("a", Outcome.FAILED)
    assert broken.reason == "ConnectionError: it has gone"
    assert 'raise ConnectionError("it has gone")' in broken.detail
    assert isinstance(refusing, tuple)
    assert refusing[1].status.message == "not here"
    assert isinstance(wrong, ClientFailure)
    assert (wrong.client_id, wrong.outcome) == ("c", Outcome.REJECTED)
    assert isinstance(nothing, ClientFailure)
    assert (nothing.client_id, nothing.outcome) == ("d", Outcome.FAILED)
    assert "NoneType" in nothing.reason
    expected = Nudge("e").nudged(parameters_to_ndarrays(initial()))
    for got, want in zip(parameters_to_ndarrays(server.parameters), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_no_more_proxies_are_called_at_once_than_allowed() -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    class Counting(Local):
        def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            result = super().fit(ins, timeout)
            with lock:
                at_once -= 1
            return result

    server, _ = _server(*(Counting(name) for name in "abcdef"))
    server.set_max_workers(2)
    server.fit(num_rounds=2, timeout=None)
    assert 1 <= most <= 2


def test_a_client_that_is_asked_twice_in_a_phase_answers_twice() -> None:
    proxy = Local("a")
    server, strategy = _server(proxy)
    ins = FitIns(initial(), {})
    strategy.configure_fit = lambda *_: [(proxy, ins), (proxy, ins)]  # type: ignore[method-assign]
    trained = server.fit_round(1, timeout=None)
    assert trained is not None
    results, failures = trained[2]
    assert ([client.cid for client, _ in results], failures) == (["a", "a"], [])


def test_disconnecting_asks_every_client_to_leave() -> None:
    proxies = [Local(name) for name in "ab"]
    server, _ = _server(*proxies)
    server.disconnect_all_clients(timeout=None)
    assert [proxy.left for proxy in proxies] == [[None], [None]]
