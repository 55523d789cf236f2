"""The same three with PyTorch: a small network on scikit-learn's digits.

pip install "flmq[torch,demo]"
flmq client torch_clients:Scaffold --client-id alice --property partition=0 --state-dir state --once
flmq client torch_clients:Scaffold --client-id bob --property partition=1 --state-dir state --once

Likewise torch_clients:Proximal for server:fedprox, and torch_clients:Nova for server:fednova, which
need no --state-dir.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flmq.client import ClientContext
from flmq.client.learning import ScaffoldClient, accumulated_steps
from flmq.common import (
    Config,
    Metrics,
    NDArrays,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.datasets.digits import NUM_CLASSES, NUM_FEATURES, client_shard
from flmq.torch import TorchClient, get_state, set_state

SEED, LR, EPOCHS, MOMENTUM = 42, 0.1, 2, 0.9


def build_net() -> nn.Module:
    """The network, with the same first weights on every client."""
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Linear(NUM_FEATURES, 32), nn.ReLU(), nn.Linear(32, NUM_CLASSES))


class Digits:
    """One client's images and labels, and the network's losses on them."""

    def __init__(self, context: ClientContext) -> None:
        self.partition = int(context.properties.get("partition", 0))
        partitions = int(context.properties.get("partitions", 2))
        images, labels = client_shard(partitions, "dirichlet", SEED, self.partition, 0.1)
        self.images = torch.from_numpy(np.array(images, np.float32))
        self.labels = torch.from_numpy(np.array(labels, np.int64))

    def losses(self, model: nn.Module, config: Config) -> Iterator[torch.Tensor]:
        """Each batch's, of the same batches whenever a round's task is done."""
        seed = SEED + 1000 * self.partition + int(config["server_round"])
        order = torch.Generator().manual_seed(seed)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(self.labels), generator=order).split(32):
                yield cross_entropy(model(self.images[batch]), self.labels[batch])

    def test(self, model: nn.Module, config: Config) -> tuple[float, int, Metrics]:
        scores = model(self.images)
        accuracy = (scores.argmax(1) == self.labels).float().mean()
        loss = cross_entropy(scores, self.labels)
        return float(loss), len(self.labels), {"accuracy": float(accuracy)}


class Proximal(Digits, TorchClient):
    """FedProx: the proximal term is part of the loss."""

    def __init__(self, context: ClientContext) -> None:
        Digits.__init__(self, context)
        TorchClient.__init__(self, build_net())

    def train(self, model: nn.Module, config: Config) -> int:
        start = [w.detach().clone() for w in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for loss in self.losses(model, config):
            pairs = zip(model.parameters(), start, strict=True)
            distance = sum((w - w_t).square().sum() for w, w_t in pairs)
            optimizer.zero_grad()
            (loss + float(config["proximal_mu"]) / 2 * distance).backward()
            optimizer.step()
        return len(self.labels)


class Scaffold(Digits, ScaffoldClient):
    """SCAFFOLD: the correction is added to each gradient, between backward() and step()."""

    def __init__(self, context: ClientContext) -> None:
        Digits.__init__(self, context)
        ScaffoldClient.__init__(self, context.state_dir)
        self.model = build_net()

    def get_parameters(self, config: Config) -> NDArrays:
        return parameters_to_ndarrays(get_state(self.model))

    def train(
        self, parameters: NDArrays, correction: NDArrays, config: Config
    ) -> tuple[NDArrays, float, int, Metrics]:
        set_state(self.model, ndarrays_to_parameters(parameters))
        by_name = dict(zip(self.model.state_dict(), correction, strict=True))
        optimizer = torch.optim.SGD(self.model.parameters(), lr=LR)
        steps = 0
        for loss in self.losses(self.model, config):
            steps += 1
            optimizer.zero_grad()
            loss.backward()
            for name, w in self.model.named_parameters():
                w.grad += torch.from_numpy(by_name[name])
            optimizer.step()
        return self.get_parameters(config), steps * LR, len(self.labels), {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        set_state(self.model, ndarrays_to_parameters(parameters))
        with torch.no_grad():
            return self.test(self.model, config)


class Nova(Digits, TorchClient):
    """FedNova: the reply says how many steps there were; with momentum, what they amount to."""

    def __init__(self, context: ClientContext) -> None:
        Digits.__init__(self, context)
        TorchClient.__init__(self, build_net())

    def train(self, model: nn.Module, config: Config) -> tuple[int, Metrics]:
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
        steps = 0
        for loss in self.losses(model, config):
            steps += 1
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(self.labels), {"tau": accumulated_steps(steps, momentum=MOMENTUM)}
