"""FedProx: clients that stay near the model they got.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, arXiv:1812.06127,
Algorithm 2: client k minimizes ``F_k(w) + mu / 2 ||w - w_t||^2``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flmq.common.typing import FitIns, Parameters
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import check_number

__all__ = ["FedProx"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedProx(FedAvg):
    """FedAvg that also tells clients ``proximal_mu``, as ``config["proximal_mu"]``.

    The term is the client's to add: ``mu * (w - w_t)`` to each gradient. Replies of clients that
    trained for fewer steps than others count as well. With 0 it is FedAvg.
    """

    proximal_mu: float = field()
    """Weight of the proximal term, 0 or more."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_number(self, "proximal_mu", least=0)

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Sample clients as FedAvg does, and add ``proximal_mu`` to each config."""
        chosen = super().configure_fit(server_round, parameters, client_manager)
        for _, ins in chosen:
            ins.config["proximal_mu"] = self.proximal_mu
        return chosen
