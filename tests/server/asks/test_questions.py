"""What clients are asked besides fit and evaluate."""

from __future__ import annotations

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
    NoInitialParameters,
)
from flmq.common.typing import Code
from flmq.observe.events import (
    ClientOutcome,
    Outcome,
)
from flmq.server import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.wire import Failure, FailureKind
from tests.end_to_end.federation import OK, Federation, Keeping, Nudge, fed_avg, initial
from tests.transport.rigs import PATIENCE


def _failed(reason: str = "no data") -> Failure:
    return Failure(FailureKind.EXCEPTION, "ValueError", reason)


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
