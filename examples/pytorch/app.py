"""A PyTorch federation: a small network on scikit-learn's digits.

    pip install torch "flmq[demo]"
    eval $(flmq broker up)
    flmq server app:server --job torch
    flmq client app:client --client-id alice --property partition=0 --once
    flmq client app:client --client-id bob --property partition=1 --once

torch is imported where it is used: the server averages arrays and does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flmq.client import Client, ClientContext, NumPyClient
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.datasets.digits import NUM_CLASSES, NUM_FEATURES, client_shard
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.context import ServerContext
from flmq.server.strategy import FedAvg

if TYPE_CHECKING:
    from torch import nn

HIDDEN = 32
SEED = 42


def build_net() -> nn.Module:
    """The network, as server and clients agree on it."""
    from torch import nn

    return nn.Sequential(nn.Linear(NUM_FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, NUM_CLASSES))


def initial_arrays() -> NDArrays:
    """The network's first weights, made without torch so that the server can do without it."""
    rng = np.random.default_rng(SEED)

    def layer(inputs: int, outputs: int) -> NDArrays:
        bound = inputs**-0.5
        shapes = ((outputs, inputs), (outputs,))
        return [rng.uniform(-bound, bound, shape).astype(np.float32) for shape in shapes]

    return [*layer(NUM_FEATURES, HIDDEN), *layer(HIDDEN, NUM_CLASSES)]


class TorchClient(NumPyClient):
    """Trains the network on one partition; the same task gives the same result."""

    def __init__(self, partition: int, num_partitions: int) -> None:
        import torch

        images, labels = client_shard(num_partitions, "dirichlet", SEED, partition, 0.5)
        self.partition = partition
        self.images = torch.from_numpy(np.asarray(images, np.float32))
        self.labels = torch.from_numpy(np.asarray(labels, np.int64))
        self.net = build_net()

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        import torch

        self._load(parameters)
        order = torch.Generator().manual_seed(SEED + 1000 * self.partition + _round_of(config))
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        for _ in range(2):
            for batch in torch.randperm(len(self.labels), generator=order).split(32):
                optimizer.zero_grad()
                self._loss(self.images[batch], self.labels[batch]).backward()
                optimizer.step()
        arrays = [tensor.numpy().copy() for tensor in self.net.state_dict().values()]
        return arrays, len(self.labels), {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        import torch

        self._load(parameters)
        with torch.no_grad():
            loss = float(self._loss(self.images, self.labels))
            hits = self.net(self.images).argmax(1) == self.labels
        return loss, len(self.labels), {"accuracy": float(hits.float().mean())}

    def _load(self, parameters: NDArrays) -> None:
        import torch

        names = self.net.state_dict().keys()
        # A copy: the arrays that a task brings are read-only.
        tensors = [torch.from_numpy(np.array(array)) for array in parameters]
        self.net.load_state_dict(dict(zip(names, tensors, strict=True)), strict=True)

    def _loss(self, images: Any, labels: Any) -> Any:
        from torch.nn.functional import cross_entropy

        return cross_entropy(self.net(images), labels)


def _round_of(config: Config) -> int:
    return int(config.get("server_round", 0))


def client(context: ClientContext) -> Client:
    """The client of a partition: ``--property partition=0``, of ``--property partitions=2``."""
    partition = int(context.properties.get("partition", 0))
    return TorchClient(partition, int(context.properties.get("partitions", 2))).to_client()


def server(context: ServerContext) -> ServerAppComponents:
    """FedAvg over two clients, or ``--config clients=10``."""
    clients = int(context.run_config.get("clients", 2))
    strategy = FedAvg(
        min_fit_clients=clients,
        min_evaluate_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters(initial_arrays()),
        on_fit_config_fn=lambda server_round: {"server_round": server_round},
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=10))
