"""A broker that refuses a task: the run's trouble with its cause, and no client's failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.common import Config
from flmq.common.errors import BrokerRefusal, MessageTooLarge
from flmq.observe.events import ClientOutcome
from flmq.server.strategy import FedAvg
from flmq.transport.topology import TASKS
from tests.end_to_end.federation import Federation, fed_avg
from tests.transport.rigs import MemoryRig


def test_a_task_that_the_broker_does_not_take_ends_the_run_which_goes_on_when_it_does(
    memory_federation: Federation, tmp_path: Path
) -> None:
    rig = memory_federation.rig
    assert isinstance(rig, MemoryRig)
    broker, taken = rig.broker, rig.broker.max_message_size
    memory_federation.serve("a", "b")

    then = [10]

    def refuse_what_follows(server_round: int) -> Config:
        if server_round == 2:
            broker.max_message_size = then.pop() if then else taken
        return {}

    def strategy() -> FedAvg:
        return fed_avg(2, on_fit_config_fn=refuse_what_follows)

    server = memory_federation.run(strategy(), rounds=3, runs_dir=tmp_path)
    with pytest.raises(MessageTooLarge, match="max_message_size of 10 bytes"):
        server.history()
    assert [event.server_round for event in server.watch.of(ClientOutcome)] == [1, 1]

    broker.max_message_size = taken
    again = memory_federation.run(strategy(), rounds=3, runs_dir=tmp_path)
    again.history()
    undisturbed = memory_federation.run(strategy(), rounds=3, job="undisturbed")
    undisturbed.history()
    assert again.watch.model() == undisturbed.watch.model()


def test_an_exchange_that_somebody_deleted_is_no_clients_failure(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = memory_federation.rig
    assert isinstance(rig, MemoryRig)
    router = rig.broker.vhost._router
    memory_federation.serve("a")

    def gone(exchange: str, routing_key: str) -> tuple[str, ...]:
        if exchange == TASKS:
            raise BrokerRefusal(f"no exchange {exchange!r} in vhost '/'")
        return type(router).route(router, exchange, routing_key)

    def delete(server_round: int) -> Config:
        monkeypatch.setattr(router, "route", gone)
        return {}

    server = memory_federation.run(fed_avg(1, on_fit_config_fn=delete))
    with pytest.raises(BrokerRefusal, match="no exchange"):
        server.history()
    assert server.watch.of(ClientOutcome) == []
