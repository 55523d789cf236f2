"""A federation of two sites for tests: its sums would depend on the order, were they not exact."""

from __future__ import annotations

from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.strategy import FedAvg
from tests.end_to_end.federation import initial, nudge

__all__ = ["client", "server"]

CLIENTS, ROUNDS, SIZE = 6, 3, 50_000
client = nudge


def server(context: object) -> ServerAppComponents:
    """What a person would write."""
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=CLIENTS,
        min_available_clients=CLIENTS,
        initial_parameters=initial(SIZE),
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))
