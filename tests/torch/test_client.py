from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flmq.client import Client
from flmq.client.client import answer
from flmq.common import Code, EvaluateIns, FitIns, GetParametersIns
from flmq.common.errors import InvalidReturnValue
from flmq.common.typing import Config
from flmq.torch import BaseDiffers, TorchClient, adapter_names, base_digest, get_state
from tests.torch.nets import Lora, batch_normed


class Returns(TorchClient):
    """Trains by adding 1, and returns what it is told to."""

    def __init__(self, returned: Any = None, **options: Any) -> None:
        super().__init__(nn.Linear(2, 1), **options)
        self.returned = returned

    def train(self, model: nn.Module, config: Config) -> Any:
        assert model.training
        with torch.no_grad():
            for each in model.parameters():
                each += 1
        return self.returned

    def test(self, model: nn.Module, config: Config) -> Any:
        assert not model.training
        assert not torch.is_grad_enabled()
        return self.returned


def fit_ins() -> FitIns:
    return FitIns(get_state(nn.Linear(2, 1)), {})


def evaluate_ins() -> EvaluateIns:
    return EvaluateIns(get_state(nn.Linear(2, 1)), {})


@pytest.mark.parametrize(
    ("returned", "num_examples", "metrics"),
    [
        (None, 1, {}),
        ({"loss": 0.5}, 1, {"loss": 0.5}),
        (7, 7, {}),
        (torch.tensor(7), 7, {}),
        ((np.int64(7), {"loss": torch.tensor(0.5)}), 7, {"loss": 0.5}),
    ],
)
def test_what_train_may_return(returned: Any, num_examples: int, metrics: dict[str, Any]) -> None:
    ins = fit_ins()
    res = answer(Returns(returned), ins)
    assert (res.num_examples, res.metrics) == (num_examples, metrics)
    assert res.parameters.names == ("weight", "bias")
    assert len(res.parameters.tensors) == 2


def test_the_examples_that_the_client_has() -> None:
    assert answer(Returns({}, num_examples=50), fit_ins()).num_examples == 50


@pytest.mark.parametrize(
    ("returned", "num_examples", "metrics"),
    [
        (0.5, 1, {}),
        (torch.tensor(0.5), 1, {}),
        ((0.5, {"accuracy": 1.0}), 1, {"accuracy": 1.0}),
        ((torch.tensor(0.5), 9, {}), 9, {}),
    ],
)
def test_what_test_may_return(returned: Any, num_examples: int, metrics: dict[str, Any]) -> None:
    res = answer(Returns(returned), evaluate_ins())
    assert (res.loss, res.num_examples, res.metrics) == (0.5, num_examples, metrics)


@pytest.mark.parametrize("returned", ["loss", (1, 2), (1.5, {}), [1], True])
def test_what_train_may_not(returned: Any) -> None:
    with pytest.raises(InvalidReturnValue, match=r"Returns.train returned .*\n.*Example|Example"):
        answer(Returns(returned), fit_ins())


@pytest.mark.parametrize("returned", [None, "0.5", (0.5, 1), (0.5, 1.5, {}), torch.ones(2)])
def test_what_test_may_not(returned: Any) -> None:
    with pytest.raises(InvalidReturnValue, match="Example"):
        answer(Returns(returned), evaluate_ins())


def test_a_method_that_was_left_out() -> None:
    class Nothing(TorchClient):
        pass

    client = Nothing(nn.Linear(2, 1))
    assert answer(client, fit_ins()).status.code is Code.FIT_NOT_IMPLEMENTED
    assert answer(client, evaluate_ins()).status.code is Code.EVALUATE_NOT_IMPLEMENTED


def test_its_parameters_are_named() -> None:
    res = answer(TorchClient(batch_normed()), GetParametersIns({}))
    assert "1.num_batches_tracked" in res.parameters.names


class TrainsAdapters(TorchClient):
    def train(self, model: nn.Module, config: Config) -> None:
        with torch.no_grad():
            model.get_parameter("lora_b").add_(1)


def adapters(net: nn.Module, digest: str) -> tuple[Client, FitIns]:
    client = TrainsAdapters(net, names=adapter_names(net))
    return client, FitIns(get_state(Lora(), adapter_names(Lora())), {"base_digest": digest})


def test_adapters_alone() -> None:
    client, ins = adapters(Lora(), base_digest(Lora()))
    assert answer(client, ins).parameters.names == ("lora_a", "lora_b")


def test_another_base_is_refused_before_training() -> None:
    client, ins = adapters(Lora(base_seed=2), base_digest(Lora()))
    with pytest.raises(BaseDiffers, match="load the same base model"):
        answer(client, ins)
