"""Clients that differ, with numpy: softmax regression on scikit-learn's digits.

pip install "flmq[demo]"
flmq client numpy_clients:Scaffold --client-id alice --property partition=0 --state-dir state --once
flmq client numpy_clients:Scaffold --client-id bob --property partition=1 --state-dir state --once

Likewise numpy_clients:Proximal for server:fedprox, and numpy_clients:Nova for server:fednova, which
need no --state-dir.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flmq.client import ClientContext, NumPyClient
from flmq.client.learning import ScaffoldClient, proximal_gradient
from flmq.common import Config, Metrics, NDArrays
from flmq.datasets.digits import NUM_CLASSES, NUM_FEATURES, client_shard

SEED, LR, EPOCHS = 42, np.float32(0.1), 2


class Digits:
    """One client's images and labels, and the model's gradients on them."""

    def __init__(self, context: ClientContext) -> None:
        self.partition = int(context.properties.get("partition", 0))
        partitions = int(context.properties.get("partitions", 2))
        self.images, labels = client_shard(partitions, "dirichlet", SEED, self.partition, 0.1)
        self.targets = np.eye(NUM_CLASSES, dtype=np.float32)[labels]

    def get_parameters(self, config: Config) -> NDArrays:
        shapes = ((NUM_FEATURES, NUM_CLASSES), (NUM_CLASSES,))
        return [np.zeros(shape, np.float32) for shape in shapes]

    def batches(self, config: Config) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same batches whenever a round's task is done, so that a kill changes nothing."""
        rng = np.random.default_rng([SEED, self.partition, int(config["server_round"])])
        for _ in range(EPOCHS):
            order = rng.permutation(len(self.images))
            for batch in np.array_split(order, max(1, len(order) // 32)):
                yield self.images[batch], self.targets[batch]

    def gradients(self, parameters: NDArrays, images: np.ndarray, targets: np.ndarray) -> NDArrays:
        error = (probabilities(parameters, images) - targets) / len(images)
        return [images.T @ error, error.sum(axis=0)]

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        predicted = probabilities(parameters, self.images)
        loss = -np.log(np.maximum((predicted * self.targets).sum(axis=1), 1e-9)).mean()
        hits = predicted.argmax(axis=1) == self.targets.argmax(axis=1)
        return float(loss), len(hits), {"accuracy": float(hits.mean())}


class Proximal(Digits, NumPyClient):
    """FedProx: each gradient has the proximal term's beside it."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        start = [w.copy() for w in parameters]
        for batch in self.batches(config):
            proximal = proximal_gradient(parameters, start, config["proximal_mu"])
            for w, g, p in zip(
                parameters, self.gradients(parameters, *batch), proximal, strict=True
            ):
                w -= LR * (g + p)
        return parameters, len(self.images), {}


class Scaffold(Digits, ScaffoldClient):
    """SCAFFOLD: each gradient has the correction beside it."""

    def __init__(self, context: ClientContext) -> None:
        Digits.__init__(self, context)
        ScaffoldClient.__init__(self, context.state_dir)

    def train(
        self, parameters: NDArrays, correction: NDArrays, config: Config
    ) -> tuple[NDArrays, float, int, Metrics]:
        steps = 0
        for batch in self.batches(config):
            steps += 1
            for w, g, h in zip(
                parameters, self.gradients(parameters, *batch), correction, strict=True
            ):
                w -= LR * (g + h)
        return parameters, steps * float(LR), len(self.images), {}


class Nova(Digits, NumPyClient):
    """FedNova: the reply says how many steps there were."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        steps = 0
        for batch in self.batches(config):
            steps += 1
            for w, g in zip(parameters, self.gradients(parameters, *batch), strict=True):
                w -= LR * g
        return parameters, len(self.images), {"tau": steps}


def probabilities(parameters: NDArrays, images: np.ndarray) -> np.ndarray:
    """Softmax of ``images @ weights + bias``."""
    weights, bias = parameters
    scores = images @ weights + bias
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
