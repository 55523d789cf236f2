"""A run that learned nothing is no run that is done; one that had nothing to learn is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.observe.events import PhaseOpened, RoundClosed, RoundCounts, RunEnded, RunEvent
from flmq.observe.learned import Learned
from flmq.server.strategy import AllReplies, FedAvg
from flmq.server.strategy.fedavg import NoMean
from tests.end_to_end.federation import Federation, fed_avg, initial

ASKED = RoundCounts(asked=2)


def closed(number: int, **fields: Any) -> RoundClosed:
    made: dict[str, Any] = {"fit": ASKED, "changed": False, "loss": None, "metrics": {}}
    return RoundClosed(
        **{
            **made,
            "server_round": number,
            "num_rounds": 3,
            "evaluate": RoundCounts(),
            "seconds": 1.0,
            "bytes_down": 0,
            "bytes_up": 0,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("rounds", "why"),
    [
        ([], ""),
        ([closed(1), closed(2, changed=True), closed(3)], ""),
        ([closed(1, fit_metrics={"histogram": 3})], ""),
        ([closed(1, fit=RoundCounts(), evaluate=ASKED)] * 2, ""),
        ([closed(1, note="early"), closed(2, note="all failed")], "all failed"),
        ([closed(1)], "aggregate_fit returned none"),
        ([closed(1, fit=RoundCounts(), note="nobody was asked")], "nobody was asked"),
        ([closed(1, fit=RoundCounts(), evaluate=ASKED), closed(2, note="failed")], "failed"),
    ],
)
def test_why_a_model_is_the_initial_one(rounds: list[RoundClosed], why: str) -> None:
    for cut in range(len(rounds) + 1):  # as told by an earlier server, and as it happens
        seen: list[RunEvent] = []
        learned = Learned(rounds[:cut], seen.append)
        for each in rounds[cut:]:
            learned(each)
        assert learned.why_not() == why
        assert seen == rounds[cut:]


class Broken(NumPyClient):
    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        raise ValueError("no data")

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return 1.0, 1, {}


def test_a_run_of_failures_is_not_called_done(
    memory_federation: Federation,
) -> None:
    memory_federation.serve("a", "b", source=Broken())
    server = memory_federation.run(fed_avg(2, fraction_evaluate=1.0), rounds=2)
    server.history()
    ended = server.watch.wait_for(RunEnded)
    assert "no reply counts (client a: failed: ValueError: no data" in ended.unchanged
    assert ended.error is None
    assert server.watch.model() == b"".join(initial().tensors)


@pytest.mark.parametrize("dtype", [np.complex64, np.longdouble])
def test_a_model_without_a_mean_is_refused_before_anybody_is_asked(
    memory_federation: Federation, dtype: Any
) -> None:
    memory_federation.serve("a", "b")
    model = ndarrays_to_parameters([np.zeros(2), np.zeros(3, dtype)])
    server = memory_federation.run(FedAvg(initial_parameters=model))
    with pytest.raises(NoMean, match=r"tensor 1.*Cast them, or override combine"):
        server.history()
    assert server.watch.of(PhaseOpened) == []


def test_whoever_does_something_else_than_averaging_may_have_any_model() -> None:
    class Own(FedAvg):
        def combine(self, server_round: int, parameters: Any) -> AllReplies:
            return AllReplies()

    model = ndarrays_to_parameters([np.zeros(3, np.complex64)])
    Own().check_mean(model)
    with pytest.raises(NoMean):
        FedAvg().check_mean(model)
