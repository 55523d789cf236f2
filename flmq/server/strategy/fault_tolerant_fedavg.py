"""FaultTolerantFedAvg: FedAvg, for rounds in which enough of the clients complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flmq.common.logger import get_logger
from flmq.common.typing import EvaluateRes, FitRes, Metrics, Parameters
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import check_number

__all__ = ["FaultTolerantFedAvg"]

logger = get_logger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class FaultTolerantFedAvg(FedAvg):
    """FedAvg that wants results from a share of the clients that it asked, else the model stays.

    Late replies of earlier rounds count as results, as they do in the mean.
    """

    min_fit_clients: int = 1
    min_evaluate_clients: int = 1
    min_available_clients: int = 1
    accept_failures: bool = field(default=True, init=False)
    min_completion_rate_fit: float = 0.5
    """Share of clients, 0 to 1, that must have trained for a round to count."""
    min_completion_rate_evaluate: float = 0.5
    """Share of clients, 0 to 1, that must have evaluated for a loss to count."""

    streams = True

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_number(self, "min_completion_rate_fit", least=0, most=1)
        check_number(self, "min_completion_rate_evaluate", least=0, most=1)

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, Metrics]:
        """Aggregate as FedAvg does if enough clients completed; else return None, as in Flower."""
        if not self._enough("min_completion_rate_fit", server_round, results, failures):
            return None, {}
        return super().aggregate_fit(server_round, results, failures)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, Metrics]:
        """Aggregate as FedAvg does if enough clients completed; else return None, as in Flower."""
        if not self._enough("min_completion_rate_evaluate", server_round, results, failures):
            return None, {}
        return super().aggregate_evaluate(server_round, results, failures)

    def _enough(
        self, option: str, server_round: int, results: Sequence[Any], failures: Sequence[Any]
    ) -> bool:
        """Return whether enough completed; if some did and they are too few, say so."""
        asked, needed = len(results) + len(failures), getattr(self, option)
        if not results or len(results) >= needed * asked:
            return bool(results)
        logger.warning(
            "round %d: %d of %d clients completed, and %s is %g: their replies are not used",
            server_round,
            len(results),
            asked,
            option,
            needed,
        )
        return False
