"""SCAFFOLD: control variates correct the drift of clients towards their own data.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
arXiv:1910.06378, Algorithm 1, option II. Client i (`flmq.client.learning.ScaffoldClient`) takes K
steps ``y -= eta_l (g(y) - c_i + c)`` from ``y = x``; then ``c_i' = c_i - c + (x - y) / (K eta_l)``.
Of the N clients those in S reply, and the server takes uniform means over S (lines 16 and 17):

    x += eta_g mean(y_i - x)        c += |S| / N mean(c_i' - c_i)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flmq.common.parameter import ndarray_to_bytes, parameters_to_ndarrays
from flmq.common.typing import FitIns, FitRes, Metrics, Parameters
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.combine import Combined
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.heterogeneous.variates import UniformMean, Variates
from flmq.server.strategy.options import check_number
from flmq.server.strategy.steps import towards

__all__ = ["SCAFFOLD"]

Failures = list[tuple[ClientProxy, FitRes] | BaseException]


@dataclass(kw_only=True, eq=False, repr=False)
class SCAFFOLD(FedAvg):
    """Federated averaging with control variates: clients get x and c, and return y and dc.

    A client keeps its variates under their digests, and returns the new one's as a metric; its next
    task says which of them counts. So c is the mean of all c_i, whatever is repeated or rejected.
    """

    num_clients: int
    """N: all clients of the federation, those included that have not taken part yet."""
    eta_g: float = 1.0
    """The server's learning rate."""
    restart_lost: bool = False
    """Whether all variates begin at zero again once a client has lost its own (`LostVariate`); by
    default it fails whenever it is asked, and the others go on."""
    streams = True

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_number(self, "num_clients", least=1, whole=True)
        check_number(self, "eta_g", above=0)
        self._variates = Variates(self.num_clients)

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Send x and c, and tell each client which of its variates counts."""
        self._variates.refuse_late(self.late_replies)
        asked = super().configure_fit(server_round, parameters, client_manager)
        return self._variates.sent_with(parameters, asked)

    def check_fit_res(self, res: FitRes) -> str | None:
        """Reject a reply that does not say which variate it made."""
        return self._variates.problem(res)

    def combine(self, server_round: int, parameters: Parameters) -> UniformMean:
        """Take the means of y and of dc as replies arrive."""
        return UniformMean()

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Step x, then c."""
        model, means = parameters_to_ndarrays(parameters, copy=False), iter(combined)
        steps = (towards(number, x, next(means), self.eta_g) for number, x in enumerate(model))
        updated = Parameters([ndarray_to_bytes(x) for x in steps], parameters.tensor_type)
        self._variates.step(combined.num_replies, means)
        return updated

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: Failures
    ) -> tuple[Parameters | None, Metrics]:
        """Count the variates of the replies once the round counts."""
        made = super().aggregate_fit(server_round, results, failures)
        self._variates.count(results if made[0] is not None else [])
        self._variates.restart_for(failures if self.restart_lost else [])
        return made

    def global_model(self, sent: Parameters) -> Parameters:
        """Return x of x and c."""
        half = len(sent.tensors) // 2
        return Parameters(sent.tensors[:half], sent.tensor_type, sent.names[:half])

    def state_dict(self) -> Mapping[str, Any]:
        """Return c, and whose variates are in it."""
        return self._variates.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self._variates.load_state_dict(state)
