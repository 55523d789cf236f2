"""What asynchronous strategies share: how many clients are busy, and what an update weighs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flmq.aggregation import specs_of
from flmq.common.errors import InconsistentTensors, InvalidReturnValue, MalformedMessage
from flmq.common.parameter import parameters_to_ndarrays
from flmq.common.typing import Parameters
from flmq.server.strategy.asynchronous import staleness as functions
from flmq.server.strategy.asynchronous.update_sum import UpdateSum
from flmq.server.strategy.combine import Combine
from flmq.server.strategy.fedavg import FedAvg, NoMean
from flmq.server.strategy.options import InvalidStrategyOption, check_number

__all__ = ["Asynchronous"]


@dataclass(kw_only=True, eq=False, repr=False)
class Asynchronous(FedAvg):
    """A strategy for a run without rounds: `ServerAppComponents` makes its server by itself.

    ``num_rounds`` counts the server's steps, and each ask has the ``round_timeout``. A failed ask
    does no harm to a step unless ``accept_failures`` is False; its client rests before it is asked
    again, ever longer while it goes on failing.
    """

    min_fit_clients: int = 1
    min_evaluate_clients: int = 1
    buffer_size: int = 10
    """K: updates that make a step."""
    concurrency: int = 100
    """C: clients that are kept busy, of those that are online."""
    staleness: str | Callable[[int], float] = "polynomial"
    """s: "constant", "polynomial", "hinge", or a function of an update's staleness (an integer, 0
    if the model made no step meanwhile) that gives its weight, above 0."""
    staleness_a: float | None = None
    """``a`` of polynomial (None: 1/2) and hinge (None: 10)."""
    staleness_b: float | None = None
    """``b`` of hinge (None: 4)."""
    max_staleness: int | None = None
    """Staler updates are dropped, and their client is asked anew; None: none are."""
    evaluate_every: int = 0
    """Clients evaluate the model after every so many steps; 0: never."""
    max_failures: int = 10
    """The run ends with an error when every client has failed so many times in a row."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InvalidStrategyOption: an option is out of its range.
        """
        super().__post_init__()
        for name in ("buffer_size", "concurrency", "max_failures"):
            check_number(self, name, least=1, whole=True)
        check_number(self, "evaluate_every", least=0, whole=True)
        if self.max_staleness is not None:
            check_number(self, "max_staleness", least=0, whole=True)
        if isinstance(self.staleness, str) and self.staleness not in functions.KINDS:
            raise InvalidStrategyOption(
                f"staleness is {self.staleness!r}: give {', '.join(functions.KINDS)}, or a function"
            )
        for name in ("staleness_a", "staleness_b"):
            if getattr(self, name) is not None:
                check_number(self, name, least=0)

    def num_fit_clients(self, num_available_clients: int) -> tuple[int, int]:
        """Return how many of the idle clients to ask: all that the server offers."""
        return num_available_clients, 0

    def weight(self, staleness: int) -> float:
        """Return ``s(staleness)``.

        Raises:
            InvalidReturnValue: the user's function gave something else than a number above 0.
        """
        if isinstance(self.staleness, str):
            a, b = self.staleness_a, self.staleness_b
            return functions.named(self.staleness, a, b)(staleness)
        weight = self.staleness(staleness)
        if not (_is_number(weight) and weight > 0):
            raise InvalidReturnValue(
                f"staleness({staleness}) returned {weight!r}: return a number above 0"
            )
        return float(weight)

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Sum up each client's difference from the model that it was trained from."""
        return UpdateSum(self.weight, parameters)

    def check_mean(self, model: Parameters) -> None:
        """Check that updates of ``model`` can be added up.

        Raises:
            NoMean: they cannot.
        """
        try:
            specs_of(parameters_to_ndarrays(model, copy=False))
        except (InconsistentTensors, MalformedMessage) as error:
            raise NoMean(error) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
