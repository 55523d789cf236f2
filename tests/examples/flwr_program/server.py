"""A server as one writes it for flwr; a fixture, moved to flmq by test_flower_program.py."""

from typing import Optional, Union

import flwr as fl
from flwr.common import FitIns, FitRes, Parameters, Scalar
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy


class MyStrategy(fl.server.strategy.FedAvg):
    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        clients = client_manager.sample(num_clients=2, min_num_clients=2)
        print(f"round {server_round}: configured {len(clients)} clients", flush=True)
        return [
            (client, FitIns(parameters, {"lr": 0.5 / server_round, "server_round": server_round}))
            for client in clients
        ]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[Union[tuple[ClientProxy, FitRes], BaseException]],
    ) -> tuple[Optional[Parameters], dict[str, Scalar]]:
        partitions = sorted(str(res.metrics["partition"]) for _, res in results)
        print(
            f"round {server_round}: {len(results)} results from {partitions}, "
            f"{len(failures)} failures",
            flush=True,
        )
        return super().aggregate_fit(server_round, results, failures)


def fit_metrics(metrics: list[tuple[int, dict[str, Scalar]]]) -> dict[str, Scalar]:
    return {"lr": float(metrics[0][1]["lr"])}


if __name__ == "__main__":
    strategy = MyStrategy(
        fraction_fit=1.0,
        min_fit_clients=2,
        min_evaluate_clients=2,
        min_available_clients=2,
        fit_metrics_aggregation_fn=fit_metrics,
    )
    history = fl.server.start_server(
        server_address="127.0.0.1:8080",
        config=fl.server.ServerConfig(num_rounds=2, round_timeout=60.0),
        strategy=strategy,
    )
    for server_round, loss in history.losses_distributed:
        print(f"round {server_round}: loss {loss}")
    print("fit metrics:", history.metrics_distributed_fit)
