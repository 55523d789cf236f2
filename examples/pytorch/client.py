"""A client of a PyTorch federation: a small network on scikit-learn's digits.

pip install "flmq[torch,demo]"
flmq client client:client --client-id alice --property partition=0 --once
flmq client client:client --client-id bob --property partition=1 --once
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flmq.client import ClientContext
from flmq.common import Config, Metrics
from flmq.datasets.digits import NUM_CLASSES, NUM_FEATURES, client_shard
from flmq.torch import TorchClient

SEED = 42


def build_net() -> nn.Module:
    """The network, with the same first weights on every client."""
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Linear(NUM_FEATURES, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, NUM_CLASSES)
    )


class Digits(TorchClient):
    """Trains the network on one partition; the same task gives the same result."""

    def __init__(self, partition: int, num_partitions: int) -> None:
        super().__init__(build_net())
        images, labels = client_shard(num_partitions, "dirichlet", SEED, partition, 0.5)
        self.images = torch.from_numpy(np.asarray(images, np.float32))
        self.labels = torch.from_numpy(np.asarray(labels, np.int64))
        self.partition = partition

    def train(self, model: nn.Module, config: Config) -> tuple[int, Metrics]:
        seed = SEED + 1000 * self.partition + int(config.get("server_round", 0))
        order = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            for batch in torch.randperm(len(self.labels), generator=order).split(32):
                optimizer.zero_grad()
                loss = cross_entropy(model(self.images[batch]), self.labels[batch])
                loss.backward()
                optimizer.step()
        return len(self.labels), {"loss": float(loss.detach())}

    def test(self, model: nn.Module, config: Config) -> tuple[float, int, Metrics]:
        scores = model(self.images)
        accuracy = (scores.argmax(1) == self.labels).float().mean()
        loss = cross_entropy(scores, self.labels)
        return float(loss), len(self.labels), {"accuracy": float(accuracy)}


def client(context: ClientContext) -> Digits:
    """The client of a partition: ``--property partition=0``, of ``--property partitions=2``."""
    partition = int(context.properties.get("partition", 0))
    return Digits(partition, int(context.properties.get("partitions", 2)))
