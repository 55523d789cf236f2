"""A classic Flower client: linear regression on points that never leave this process.

Run it with ``python client.py 0`` and ``python client.py 1``; FLMQ_BROKER_URL names the broker.
"""

import sys

import numpy as np

from flmq.client import NumPyClient, start_client
from flmq.common import Config, Metrics, NDArrays


class Regression(NumPyClient):
    """Fits y = Xw by gradient descent."""

    def __init__(self, partition: int) -> None:
        rng = np.random.default_rng(partition)
        self.features = rng.normal(size=(200, 3))
        self.targets = self.features @ np.array([1.0, -2.0, 0.5]) + rng.normal(0, 0.1, 200)

    def get_parameters(self, config: Config) -> NDArrays:
        return [np.zeros(3)]

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        weights, lr = parameters[0], float(config["lr"])
        for _ in range(3):
            error = self.features @ weights - self.targets
            weights = weights - lr * self.features.T @ error / len(error)
        return [weights], len(self.targets), {"lr": lr}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        error = self.features @ parameters[0] - self.targets
        return float(np.mean(error**2)), len(self.targets), {}


if __name__ == "__main__":
    start_client(server_address=None, client=Regression(int(sys.argv[1])).to_client())
