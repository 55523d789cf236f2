"""A server of flmq or of Flower: the same program, for both have the same interface.

A round's time runs from the strategy's choice of clients to its next `evaluate`, which both call
with the aggregated parameters; see `flmq.server.Server.fit` and flwr's.
"""

from __future__ import annotations

import argparse
import importlib
import zlib
from pathlib import Path
from typing import Any

from benchmarks.contestants.model import make_model
from benchmarks.contestants.stage import Stage, address

_MAX_MESSAGE = 2**31 - 1


def timed(strategy: Any, stage: Stage) -> Any:
    """Make a subclass of ``strategy`` that tells ``stage`` when rounds begin and end."""

    class Timed(strategy):  # type: ignore[misc]
        answers = 0
        first: tuple[int, bytes] = 0, b""

        def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
            chosen = super().configure_fit(server_round, parameters, client_manager)
            stage.begin()
            return chosen

        def evaluate(self, server_round: int, parameters: Any) -> None:
            if server_round == 0:
                self.first = fingerprint(parameters)
                stage.up()
                return
            stage.end(answers=self.answers, is_exact=lambda: self.is_exact(parameters))

        def is_exact(self, parameters: Any) -> bool:
            """Whether what nobody trained has kept its bits; all else must have moved."""
            still, moving = fingerprint(parameters)
            if moving == self.first[1]:
                raise SystemExit("the aggregated model is the one of before the round")
            return still == self.first[0]

        def count(self, metrics: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
            self.answers = len(metrics)
            return {}

    return Timed


def fingerprint(parameters: Any) -> tuple[int, bytes]:
    """CRC-32 of all tensors' bytes but the last's, which clients train; and the last."""
    crc = 0
    for tensor in parameters.tensors[:-1]:
        crc = zlib.crc32(tensor, crc)
    return crc, bytes(parameters.tensors[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=("flmq", "flwr"), required=True)
    parser.add_argument("--strategy", default="FedAvg")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--model-bytes", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--keys", type=Path, help="folder of keys: protect all from end to end")
    options = parser.parse_args()
    fl = importlib.import_module(options.library)
    server, common = fl.server, fl.common
    stage = Stage()
    strategy = timed(getattr(server.strategy, options.strategy), stage)(
        fraction_evaluate=0.0,
        min_fit_clients=options.clients,
        min_available_clients=options.clients,
        initial_parameters=common.ndarrays_to_parameters(make_model(options.model_bytes)),
    )
    strategy.fit_metrics_aggregation_fn = strategy.count
    protected: dict[str, Any] = {}
    if options.keys is not None:
        keys, trust = options.keys / "server.key", options.keys / "clients"
        protected = {"e2e": True, "keys": keys, "trust": trust}
    server.start_server(
        server_address=address(),
        config=server.ServerConfig(num_rounds=options.rounds),
        strategy=strategy,
        grpc_max_message_length=_MAX_MESSAGE,
        **protected,
    )


if __name__ == "__main__":
    main()
