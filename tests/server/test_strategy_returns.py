"""What a strategy returns: what is not of the contract is named with method, type and example."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.common.errors import InvalidReturnValue, UsageError
from flmq.server import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.simulation import start_simulation


class Plain(NumPyClient):
    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        return [parameters[0] + 1], 10, {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return 0.5, 10, {}


def run(method: str, returned: Any) -> str:
    """What ends a run whose strategy's ``method`` returns ``returned``."""
    kind = type("Mine", (FedAvg,), {method: lambda self, *_: returned})
    strategy = kind(initial_parameters=ndarrays_to_parameters([np.zeros(1)]))
    with pytest.raises(InvalidReturnValue) as info:
        start_simulation(
            client_fn=Plain, num_clients=2, config=ServerConfig(num_rounds=1), strategy=strategy
        )
    return str(info.value)


ARRAY = np.zeros(1)
WRONG: dict[str, tuple[str, Any, str]] = {
    "a list as the first model": ("initialize_parameters", [ARRAY], "a list as parameters"),
    "arrays as a new model": ("aggregate_fit", ([ARRAY], {}), "a list as parameters"),
    "a model without metrics": ("aggregate_fit", [ARRAY], "a list, not a pair of Parameters"),
    "nothing at all": ("aggregate_fit", None, "a NoneType, not a pair of Parameters"),
    "metrics of another type": ("aggregate_fit", (None, 3), "(NoneType, int), not a pair"),
    "a bare loss of clients": ("aggregate_evaluate", 0.5, "a float, not a pair of a loss"),
    "a loss that is no number": ("aggregate_evaluate", ("x", {}), "(str, dict), not a pair"),
    "a bare loss of the server": ("evaluate", 0.5, "a float, not a pair of a loss"),
    "nobody asked by None": ("configure_fit", None, "a NoneType, not a list of pairs"),
    "names in place of clients": ("configure_fit", ["a"], "a list with a str in it, not a list"),
    "the same to measure": ("configure_evaluate", {1: 2}, "a dict, not a list of pairs"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_strategy_must_not_return_is_named(what: str) -> None:
    method, returned, said = WRONG[what]
    text = run(method, returned)
    assert text.startswith(f"Mine.{method} returned ")
    assert said in text


@pytest.mark.parametrize("wrong", [[ARRAY], ARRAY, "model.npz"])
def test_initial_parameters_that_are_none_are_refused_where_they_are_given(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"initial_parameters is a .*ndarrays_to_parameters"):
        FedAvg(initial_parameters=wrong)
