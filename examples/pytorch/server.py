"""The server of a PyTorch federation: it averages named tensors, and does without torch.

eval $(flmq broker up)
flmq server server:server --job torch
"""

from __future__ import annotations

from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.context import ServerContext
from flmq.server.strategy import FedAvg


def server(context: ServerContext) -> ServerAppComponents:
    """FedAvg over two clients, or ``--config clients=10``; the model is a client's first."""
    clients = int(context.run_config.get("clients", 2))
    strategy = FedAvg(
        min_fit_clients=clients,
        min_evaluate_clients=clients,
        min_available_clients=clients,
        on_fit_config_fn=lambda server_round: {"server_round": server_round},
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=10))
