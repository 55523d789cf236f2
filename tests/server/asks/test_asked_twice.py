"""A client that is asked twice in one round: two asks, each with its own fate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flmq.common import FitIns, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.round import Outcome
from flmq.server import ClientManager, ServerConfig
from flmq.server.client_proxy import ClientProxy
from flmq.server.replies import reply_loop
from flmq.server.strategy import FedAvg
from flmq.wire import ReceiptOutcome
from tests.dying import Died, dies_at
from tests.end_to_end.federation import Federation, initial
from tests.transport.rigs import PATIENCE


class Twice(FedAvg):
    """Asks each client twice, with two models of its own."""

    def __init__(self, size: int, clients: int) -> None:
        super().__init__(
            fraction_evaluate=0.0, min_available_clients=clients, initial_parameters=initial(size)
        )
        self.clients = clients

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        assert client_manager.wait_for(self.clients, int(PATIENCE))
        model = parameters_to_ndarrays(parameters)
        return [
            (client, FitIns(ndarrays_to_parameters([t + np.float32(n) for t in model]), {}))
            for n, name in enumerate(sorted(client_manager.all()) * 2)
            for client in [client_manager.all()[name]]
        ]


@pytest.mark.parametrize("size", [5, 100_000], ids=["in the task", "asked for"])
def test_both_count_also_when_the_server_dies_in_between(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    federation.serve("a", "b")
    undisturbed = federation.run(Twice(size, 2), job="undisturbed").model()
    with monkeypatch.context() as patch:
        patch.setattr(reply_loop, "crash_point", dies_at("server.reply_journalled"))
        with pytest.raises(Died):
            federation.run(Twice(size, 2), runs_dir=tmp_path).history()
    server = federation.run(Twice(size, 2), runs_dir=tmp_path)
    assert server.model() == undisturbed
    names = ("a", "a#2", "b", "b#2")
    assert server.watch.words() == {name: [Outcome.ACCEPTED] for name in names}
    assert [closed.fit.accepted for closed in server.watch.rounds()] == [4]


def test_both_can_be_late(federation: Federation) -> None:
    late, other = federation.peer("a"), federation.peer("b")
    config = ServerConfig(num_rounds=2, round_timeout=None, target_results=2)
    server = federation.run(Twice(5, 2), config=config)
    asked = [late.task(), late.task()]
    for _ in range(2):
        other.reply(other.task())
    again = [other.task(), other.task()]  # the next round has begun
    for task in asked:
        late.reply(task)
        assert late.receipt().outcome is ReceiptOutcome.LATE
    for task in again:
        other.reply(task)
    server.history()
    words = server.watch.words(1)
    assert words["a"] == words["a#2"] == [Outcome.SILENT, Outcome.LATE]
