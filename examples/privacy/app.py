"""A private federation: clients clip their updates, and the server adds noise to their mean.

eval $(flmq broker up)
flmq server app:server --job private
flmq client app:client --client-id alice --once
...
"""

import numpy as np

from flmq.client import Client, ClientContext, NumPyClient
from flmq.client.mod import fixedclipping_mod, with_mods
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.context import ServerContext
from flmq.server.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg


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


def client(context: ClientContext) -> Client:
    return with_mods(Line(context.client_id), [fixedclipping_mod])


def server(context: ServerContext) -> ServerAppComponents:
    """Rounds of ten clients, or ``-c clients=100``: the more, the less noise on their mean."""
    clients = int(context.run_config.get("clients", 10))
    strategy = DifferentialPrivacyClientSideFixedClipping(
        FedAvg(
            min_fit_clients=clients,
            min_available_clients=clients,
            fraction_evaluate=0.0,
            initial_parameters=ndarrays_to_parameters([np.zeros(2)]),
        ),
        noise_multiplier=0.8,
        clipping_norm=0.5,
        num_sampled_clients=clients,
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=20))
