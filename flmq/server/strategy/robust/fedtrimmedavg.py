"""FedTrimmedAvg: the mean of each coordinate, without its smallest and largest values.

Yin, Chen, Ramchandran, Bartlett: "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018, arXiv:1803.01498, Definition 2 and Algorithm 1, option II: of n
values of a coordinate the mean of those that remain without the beta n smallest and beta n
largest. It withstands liars that are no more than beta n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from flmq.common.typing import Parameters
from flmq.server.strategy.combine import Combine
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import check_number
from flmq.server.strategy.robust.rules import one_vote_each, trimmed_means

__all__ = ["FedTrimmedAvg"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedTrimmedAvg(FedAvg):
    """Takes the trimmed mean of each coordinate, constructed as `FedAvg` with ``beta`` besides.

    Of n replies ``int(beta n)`` are left out at either end of each coordinate, and where that is
    none, the round fails: Flower takes the plain mean then, and says nothing. With the default 0.2
    a round so needs five replies. Every client has one vote, whatever its ``num_examples``.

    Raises:
        ValueError: an option is out of its range.
        NothingToTrim: in a round, which then fails.
    """

    beta: float = 0.2
    """Share of the replies to leave out at either end: above 0 (FedAvg trims none), below 0.5."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_number(self, "beta", above=0, below=0.5)

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Take the trimmed means once all replies have come."""
        return one_vote_each(partial(trimmed_means, beta=self.beta))
