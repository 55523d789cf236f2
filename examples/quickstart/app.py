"""A federation of one's own: each client has points near one line, together they find it."""

import numpy as np

from flmq.client import ClientContext, NumPyClient
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.strategy import FedAvg


class Line(NumPyClient):
    def __init__(self, name: str) -> None:
        rng = np.random.default_rng(list(name.encode()))  # each client has points of its own
        self.x = rng.uniform(-1, 1, 100)
        self.y = 3 * self.x + 1 + rng.normal(0, 0.1, 100)

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        slope, intercept = parameters[0]
        for _ in range(2):
            error = slope * self.x + intercept - self.y
            slope, intercept = slope - np.mean(error * self.x), intercept - np.mean(error)
        return [np.array([slope, intercept])], len(self.x), {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        slope, intercept = parameters[0]
        error = slope * self.x + intercept - self.y
        return float(np.mean(error**2)), len(self.x), {"worst": float(np.abs(error).max())}


def client(context: ClientContext) -> NumPyClient:
    return Line(context.client_id)


def server() -> ServerAppComponents:
    strategy = FedAvg(initial_parameters=ndarrays_to_parameters([np.zeros(2)]))
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=5))
