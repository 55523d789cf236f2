"""A federation of two for tests that kill its processes."""

from __future__ import annotations

from flmq.client import Client, ClientContext
from flmq.server import ServerAppComponents, ServerConfig
from tests.end_to_end.federation import fed_avg, initial, nudge

ROUNDS = 3
SIZE = 400_000
"""Numbers of a model that goes by the stream, and whose replies come in chunks."""


def client(context: ClientContext) -> Client:
    return nudge(context).to_client()


def server() -> ServerAppComponents:
    strategy = fed_avg(2, initial_parameters=initial(SIZE))
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))
