"""FedAsync: the model is mixed with each client's own as it comes.

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", 2019, arXiv:1903.03934, Algorithm 1::

    a_s = alpha s(staleness)
    w <- (1 - a_s) w + a_s w_k

Other than in FedBuff a client's model is mixed in as a whole, and not only what it has learned
since its ask. The proximal term of the paper is the client's, as in FedProx.
"""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.typing import Parameters
from flmq.server.strategy.asynchronous.asynchronous import Asynchronous
from flmq.server.strategy.asynchronous.update_sum import UpdateSum, moved
from flmq.server.strategy.combine import Combine, Combined
from flmq.server.strategy.options import InvalidStrategyOption, check_number

__all__ = ["FedAsync"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedAsync(Asynchronous):
    """FedAsync, with the options of `Asynchronous` and ``alpha``; its buffer is one update."""

    buffer_size: int = 1
    alpha: float = 0.6
    """The weight of a fresh model, above 0 and at most 1."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InvalidStrategyOption: an option is out of its range.
        """
        super().__post_init__()
        if self.buffer_size != 1:
            raise InvalidStrategyOption(
                f"buffer_size is {self.buffer_size!r}: FedAsync takes each model by itself; leave "
                "it out, or use FedBuff"
            )
        check_number(self, "alpha", above=0, most=1)

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Take the difference from the present model: ``s (w_k - w)``."""
        return UpdateSum(self.weight, parameters, from_model=True)

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """``w + alpha s (w_k - w)``, which is ``(1 - a_s) w + a_s w_k``."""
        return moved(parameters, combined, self.alpha)
