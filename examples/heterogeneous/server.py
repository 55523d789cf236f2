"""Servers of strategies for clients that differ; each needs a part of its clients.

eval $(flmq broker up)
flmq server server:scaffold --job scaffold
"""

from __future__ import annotations

from typing import Any

from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.context import ServerContext
from flmq.server.strategy import SCAFFOLD, FedNova, FedProx


def fedprox(context: ServerContext) -> ServerAppComponents:
    """Clients are kept near the global model."""
    return _parts(FedProx(**_options(context), proximal_mu=0.1))


def scaffold(context: ServerContext) -> ServerAppComponents:
    """Clients correct their drift; the federation has as many as a round asks."""
    return _parts(SCAFFOLD(**_options(context), num_clients=_clients(context)))


def fednova(context: ServerContext) -> ServerAppComponents:
    """Clients may take as many steps as they like."""
    return _parts(FedNova(**_options(context)))


def _clients(context: ServerContext) -> int:
    return int(context.run_config.get("clients", 2))


def _options(context: ServerContext) -> dict[str, Any]:
    """All of two clients, or ``--config clients=10``; the model is a client's first."""
    names = ("min_fit_clients", "min_evaluate_clients", "min_available_clients")
    return {
        **dict.fromkeys(names, _clients(context)),
        "on_fit_config_fn": lambda server_round: {"server_round": server_round},
    }


def _parts(strategy: Any) -> ServerAppComponents:
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=10))
