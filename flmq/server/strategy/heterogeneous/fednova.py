"""FedNova: a client's update counts by its examples, however many local steps it took.

Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
NeurIPS 2020, arXiv:2007.07481, equations 10 and 11. With ``p_i = n_i / n`` and the number of local
steps ``tau_i`` (in general the 1-norm of ``a_i``: `flmq.client.learning.accumulated_steps`),

    d_i = (w - w_i) / (eta tau_i)        w -= eta tau_eff sum p_i d_i,  tau_eff = sum p_i tau_i

The local learning rate eta cancels: the server need not know it.
"""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.dtypes import is_float
from flmq.common.learning import TAU
from flmq.common.parameter import ndarray_to_bytes, parameters_to_ndarrays
from flmq.common.typing import FitRes, Parameters
from flmq.server.strategy.combine import Combined
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.heterogeneous.normalized_mean import NormalizedMean
from flmq.server.strategy.options import check_number
from flmq.server.strategy.steps import moved

__all__ = ["FedNova"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedNova(FedAvg):
    """Federated averaging of updates that are normalized by the number of local steps.

    Each client returns its number among its metrics, ``{"tau": steps}``; a reply without it is
    rejected. Tensors of integers and booleans are averaged as by FedAvg.
    """

    max_tau: float = 100_000
    """A reply that says more is rejected: everybody's update is scaled by the mean of these."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_number(self, "max_tau", least=1)

    def check_fit_res(self, res: FitRes) -> str | None:
        """Reject a reply without a number of steps from 1 to ``max_tau``."""
        tau = res.metrics.get(TAU)
        if isinstance(tau, int | float) and tau is not True and 1 <= tau <= self.max_tau:
            return None
        return (
            f'the metric "{TAU}" is {tau!r:.70}: return the number of local steps as it, from 1 to '
            f"{self.max_tau:g}; FedNova divides by it"
        )

    def combine(self, server_round: int, parameters: Parameters) -> NormalizedMean:
        """Take ``eta tau_eff sum p_i d_i``, with the opposite sign, as replies arrive."""
        return NormalizedMean(parameters_to_ndarrays(parameters, copy=False))

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Add it to the model."""
        model = parameters_to_ndarrays(parameters, copy=False)
        return Parameters(
            [
                ndarray_to_bytes(moved(index, w, change) if is_float(w.dtype) else change)
                for index, (w, change) in enumerate(zip(model, combined, strict=True))
            ],
            parameters.tensor_type,
        )
