"""FedMedian: the median of each coordinate.

Yin, Chen, Ramchandran, Bartlett: "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018, arXiv:1803.01498, Definition 1 and Algorithm 1, option I:
``w_j = median {w_j^k : k}``. It withstands liars that are fewer than half.
"""

from __future__ import annotations

from flmq.common.typing import Parameters
from flmq.server.strategy.combine import Combine
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.robust.rules import medians, one_vote_each

__all__ = ["FedMedian"]


class FedMedian(FedAvg):
    """Takes the median of each coordinate, constructed as `FedAvg`.

    Of an even number of replies it is the mean of the middle two. Every client has one vote,
    whatever its ``num_examples``.
    """

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Take the medians once all replies have come."""
        return one_vote_each(medians)
