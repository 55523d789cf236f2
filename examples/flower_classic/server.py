"""A classic Flower server: FedAvg with a learning rate that falls, and a log of who took part.

Run it with ``python server.py``; FLMQ_BROKER_URL names the broker.
"""

from flmq.common import FitIns, FitRes, Parameters, Scalar
from flmq.server import ServerConfig, start_server
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import FedAvg


class Decaying(FedAvg):
    """Tells each client its learning rate for the round."""

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        instructions = super().configure_fit(server_round, parameters, client_manager)
        for _, ins in instructions:
            ins.config["lr"] = 0.5 / server_round
        return instructions

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        print(f"round {server_round}: {len(results)} results, {len(failures)} failures")
        return super().aggregate_fit(server_round, results, failures)


if __name__ == "__main__":
    history = start_server(
        server_address=None,  # a broker's URL, or None: FLMQ_BROKER_URL
        config=ServerConfig(num_rounds=5, round_timeout=60.0),
        strategy=Decaying(min_fit_clients=2, min_evaluate_clients=2, min_available_clients=2),
    )
    print(
        "losses:",
        [(server_round, round(loss, 4)) for server_round, loss in history.losses_distributed],
    )
