"""Bulyan: choose replies by Krum, then average what is nearest to their median.

El Mhamdi, Guerraoui, Rouault: "The Hidden Vulnerability of Distributed Learning in Byzantium",
ICML 2018, arXiv:1802.07927, section 4. Of n >= 4f + 3 replies of which f lie, Krum chooses one
after the other, without putting it back, theta = n - 2f in all. Each coordinate of the model is the
mean of the beta = theta - 2f chosen values that are nearest to their median. A liar that Krum lets
in cannot move a single coordinate far, as it can where there are many coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flmq.common.typing import Parameters
from flmq.server.strategy.combine import Combine
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import check_number
from flmq.server.strategy.robust.aggregate import aggregate_krum
from flmq.server.strategy.robust.needs import (
    bulyan_needs,
    check_asked,
    check_first_rule,
)
from flmq.server.strategy.robust.rules import bulyan, one_vote_each

__all__ = ["Bulyan"]


@dataclass(kw_only=True, eq=False, repr=False)
class Bulyan(FedAvg):
    """Withstands f liars in every coordinate, constructed as `FedAvg`, and with Flower's options.

    The defaults choose by Krum and withstand no liar: with f = 0 nothing is left out, and the
    result is the mean of all, each with one vote. (In Flower 1.41 the defaults raise a
    `TypeError`: ``aggregate_krum`` lacks its ``to_keep``.) All distances are computed once, where
    Flower computes them anew for each choice.

    Raises:
        ValueError: an option is out of its range.
        TooFewReplies: in a round, which then fails.
    """

    num_malicious_clients: int = 0
    """f, the number of liars to withstand; a round then needs 4f + 3 replies."""
    first_aggregation_rule: Callable[..., Any] = aggregate_krum
    """What chooses: `aggregate_krum`. Neither Flower nor flmq has another."""
    to_keep: int = 0
    """That rule's argument, which Flower's programs give: 0 or 1, Krum either way."""

    def __post_init__(self) -> None:
        """Check ranges; warn if a round may have too few replies."""
        super().__post_init__()
        check_number(self, "num_malicious_clients", least=0, whole=True)
        check_first_rule(self.first_aggregation_rule, aggregate_krum, {"to_keep": self.to_keep})
        f = self.num_malicious_clients
        check_asked(self, bulyan_needs(f), f"Bulyan with num_malicious_clients={f}")

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Choose and average once all replies have come."""
        return one_vote_each(partial(bulyan, f=self.num_malicious_clients))
