"""Krum and MultiKrum: the replies whose nearest neighbours are nearest.

Blanchard, El Mhamdi, Guerraoui, Stainer: "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent", NIPS 2017, arXiv:1703.02757, section 4. Of n replies of which f lie, 2f + 2 < n,
each has the score ``s(i) = sum over the n - f - 2 nearest j of |w_i - w_j|^2``. Krum's model is the
reply with the lowest score; MultiKrum's the mean of the m lowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from flmq.common.typing import Parameters
from flmq.server.strategy.combine import Combine
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import check_number
from flmq.server.strategy.robust.needs import check_asked, krum_needs
from flmq.server.strategy.robust.rules import krum, one_vote_each

__all__ = ["Krum", "MultiKrum"]


@dataclass(kw_only=True, eq=False, repr=False)
class Krum(FedAvg):
    """Chooses the reply in the midst of the others, constructed as `FedAvg`, and with two options.

    The arguments are those of Flower's. Three things differ: distances are sums of squared
    differences in float64; a round of fewer than 2f + 3 replies fails, for then a liar may be
    chosen; and the mean of MultiKrum weighs all alike, as the paper's does, where Flower's takes a
    client's word for its ``num_examples``. Of equal scores the first client id counts.

    Raises:
        ValueError: an option is out of its range.
        TooFewReplies: in a round, which then fails.
    """

    num_malicious_clients: int = 0
    """f, the number of liars to withstand."""
    num_clients_to_keep: int = 0
    """m, the replies to take the mean of, at most n - f: more would have a liar among them. 0 is
    Krum."""

    def __post_init__(self) -> None:
        """Check ranges; warn if a round may have too few replies."""
        super().__post_init__()
        for name in ("num_malicious_clients", "num_clients_to_keep"):
            check_number(self, name, least=0, whole=True)
        f, keep = self.num_malicious_clients, self.num_clients_to_keep
        needed = max(krum_needs(f), keep + f)
        check_asked(self, needed, f"{type(self).__name__} with num_malicious_clients={f}")

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Choose once all replies have come."""
        f, keep = self.num_malicious_clients, self.num_clients_to_keep
        return one_vote_each(partial(krum, f=f, keep=keep))


@dataclass(kw_only=True, eq=False, repr=False)
class MultiKrum(Krum):
    """The mean of Krum's ``num_clients_to_keep`` best replies. With 1, the default, it is Krum."""

    num_clients_to_keep: int = 1
    """m, the replies to take the mean of: 1 or more."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_number(self, "num_clients_to_keep", least=1, whole=True)
