"""A server for tests: rounds close with their first reply, so that the test says who is late."""

from __future__ import annotations

from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.context import ServerContext
from flmq.server.strategy import FedAvg
from tests.end_to_end.federation import initial

ROUNDS = 3


def strategy(size: int) -> FedAvg:
    """FedAvg over two clients and a model of ``size`` numbers and two more."""
    return FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=2,
        min_available_clients=2,
        initial_parameters=initial(size),
    )


def server(context: ServerContext) -> ServerAppComponents:
    """What a person would write."""
    config = ServerConfig(num_rounds=ROUNDS, round_timeout=None, target_results=1)
    return ServerAppComponents(strategy=strategy(int(context.run_config["size"])), config=config)
