"""The options shared by federated averaging and everything built on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flmq.common.errors import UsageError
from flmq.common.logger import get_logger
from flmq.common.parameter import parameters_problem
from flmq.common.typing import Config, Metrics, MetricsAggregationFn, NDArrays, Parameters
from flmq.server.criterion import Criterion

__all__ = ["FedAvgOptions", "InvalidStrategyOption", "check_number"]

logger = get_logger(__name__)

EvaluateFn = Callable[[int, NDArrays, Config], tuple[float, Metrics] | None]


class InvalidStrategyOption(UsageError, ValueError):
    """An option of a strategy is out of its range, or of the wrong type."""


def check_number(
    strategy: object,
    name: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Check that option ``name`` of ``strategy`` is a finite number within these bounds.

    ``least`` and ``most`` are within, ``above`` and ``below`` are not; ``whole`` asks for an int.

    Raises:
        InvalidStrategyOption: it is not; names it, its value, and what to give.
    """
    value = getattr(strategy, name)
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        return
    bounds = (("of at least", least), ("above", above), ("of at most", most), ("below", below))
    wanted = " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)
    kind = "a whole number" if whole else "a number"
    raise InvalidStrategyOption(f"{name} is {value!r}: give {f'{kind} {wanted}'.strip()}")


@dataclass(kw_only=True, eq=False, repr=False)
class FedAvgOptions:
    """Keyword arguments of `FedAvg`, with Flower's names and defaults.

    Raises:
        InvalidStrategyOption: an option is out of its range; a ValueError, as in Flower.
    """

    fraction_fit: float = 1.0
    """Fraction of the available clients that train; never fewer than ``min_fit_clients``."""
    fraction_evaluate: float = 1.0
    """Fraction of the available clients that evaluate; never fewer than ``min_evaluate_clients``,
    unless it is 0: then nobody does."""
    min_fit_clients: int = 2
    min_evaluate_clients: int = 2
    min_available_clients: int = 2
    """A round begins once this many clients are available."""
    evaluate_fn: EvaluateFn | None = None
    """``(server_round, ndarrays, {}) -> (loss, metrics) | None``: evaluates on the server."""
    on_fit_config_fn: Callable[[int], Config] | None = None
    """``server_round -> config`` for the clients that train."""
    on_evaluate_config_fn: Callable[[int], Config] | None = None
    """``server_round -> config`` for the clients that evaluate."""
    accept_failures: bool = True
    """Whether a round with failures counts."""
    initial_parameters: Parameters | None = None
    """The initial model; None to ask one client for its own."""
    fit_metrics_aggregation_fn: MetricsAggregationFn | None = None
    """``[(num_examples, metrics)] -> metrics``; None for the weighted mean of numeric metrics."""
    evaluate_metrics_aggregation_fn: MetricsAggregationFn | None = None
    """The same for metrics of evaluation."""
    inplace: bool = True
    """Accepted for compatibility with Flower, and ignored: the mean is exact anyway."""
    cast: str | None = None
    """"like sent" to cast replies of another float dtype than the model's to it, rounded once; None
    to refuse them. Flower's strategies have no such argument, and take the dtype that comes."""
    criterion: Criterion | None = None
    """Which clients may be asked (`flmq.server.criteria`); the numbers and fractions above are of
    these. None for all. Flower's strategies have no such argument."""

    def __post_init__(self) -> None:
        """Check ranges; warn if a round could begin with fewer clients than it asks."""
        for name in ("fraction_fit", "fraction_evaluate"):
            check_number(self, name, least=0, most=1)
        for name in ("min_fit_clients", "min_evaluate_clients", "min_available_clients"):
            check_number(self, name, least=0, whole=True)
        if self.initial_parameters is not None:
            problem = parameters_problem(self.initial_parameters)
            if problem is not None:
                raise InvalidStrategyOption(f"initial_parameters is {problem}")
        if self.cast not in (None, "like sent"):
            raise InvalidStrategyOption(f'cast is {self.cast!r}: give "like sent", or None')
        if not (self.criterion is None or callable(getattr(self.criterion, "select", None))):
            raise InvalidStrategyOption(
                f"criterion is a {type(self.criterion).__name__}: give a flmq Criterion, as in "
                'ByProperty(region="eu")'
            )
        if isinstance(self.criterion, type):
            name = self.criterion.__name__
            raise InvalidStrategyOption(f"criterion is the class {name}: make one: {name}(...)")
        most_asked = max(self.min_fit_clients, self.min_evaluate_clients)
        if self.min_available_clients < most_asked:
            logger.warning(
                "min_available_clients is %d, below the %d clients that a round asks at least: "
                "such a round asks nobody; raise min_available_clients",
                self.min_available_clients,
                most_asked,
            )
