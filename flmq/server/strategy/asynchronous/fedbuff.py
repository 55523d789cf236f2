"""FedBuff: the model steps along the mean of every K updates, however old what they started from.

Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022,
arXiv:2106.06639, Algorithm 1::

    delta_k = s(t_k) (w_k - w^{t_k's version})
    w <- w + eta_g / K  sum_{k in buffer} delta_k

Each difference is against the model that *its* client was trained from, whatever versions are in
the buffer together; each update has the weight of its staleness alone, not of its examples:
``s(t) = 1 / sqrt(1 + t)`` unless ``staleness`` says otherwise, and ``s(0) = 1``.
"""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.typing import Parameters
from flmq.server.strategy.asynchronous.asynchronous import Asynchronous
from flmq.server.strategy.asynchronous.update_sum import moved
from flmq.server.strategy.combine import Combined
from flmq.server.strategy.options import check_number

__all__ = ["FedBuff"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedBuff(Asynchronous):
    """FedBuff, with the options of `Asynchronous` and ``server_learning_rate``."""

    server_learning_rate: float = 1.0
    """eta_g."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InvalidStrategyOption: an option is out of its range.
        """
        super().__post_init__()
        check_number(self, "server_learning_rate", above=0)

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """``w + eta_g / K sum delta``: the mean of the buffer is the sum over K."""
        return moved(parameters, combined, self.server_learning_rate)
