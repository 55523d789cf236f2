"""A private federation for tests: two clients that clip, and noise of a known seed."""

from __future__ import annotations

from flmq.client import Client, ClientContext, NumPyClient
from flmq.client.mod import adaptiveclipping_mod, with_mods
from flmq.common import Config, Metrics, NDArrays
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.strategy import DifferentialPrivacyClientSideAdaptiveClipping, FedAvgM
from tests.end_to_end.federation import initial

ROUNDS = 3
CLIENTS = ("a", "bb")
SIZE = 1000


class Mover(NumPyClient):
    """Moves a model by what its name and the model say."""

    def __init__(self, name: str) -> None:
        self.by = len(name) / 7

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        return [x + (self.by * x).astype(x.dtype) for x in parameters], 10, {"loss": 0.5}


def client(context: ClientContext) -> Client:
    return with_mods(Mover(context.client_id), [adaptiveclipping_mod])


def server() -> ServerAppComponents:
    """What a person would write, but for the seed."""
    inner = FedAvgM(fraction_evaluate=0.0, server_momentum=0.9, initial_parameters=initial(SIZE))
    strategy = DifferentialPrivacyClientSideAdaptiveClipping(
        inner, 0.5, len(CLIENTS), initial_clipping_norm=1.0, clipped_count_stddev=1.0, noise_seed=11
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))
