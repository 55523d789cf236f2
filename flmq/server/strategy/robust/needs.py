"""How many replies a robust rule needs, and the errors where there are too few."""

from __future__ import annotations

from collections.abc import Mapping

from flmq.common.errors import AggregationError
from flmq.common.logger import get_logger
from flmq.server.strategy.options import FedAvgOptions, InvalidStrategyOption

__all__ = [
    "NothingToTrim",
    "TooFewReplies",
    "bulyan_needs",
    "check_asked",
    "check_count",
    "check_first_rule",
    "krum_needs",
]

logger = get_logger(__name__)


class TooFewReplies(AggregationError):
    """Fewer replies than a rule needs to withstand as many liars as it was told of."""

    def __init__(self, count: int, needed: int, why: str) -> None:
        """Give both numbers, and where the second comes from."""
        self.count = count
        self.needed = needed
        super().__init__(
            f"{count} clients replied, and {why} needs {needed} or more: ask more clients (raise "
            "min_fit_clients) or withstand fewer liars"
        )


class NothingToTrim(AggregationError):
    """A trimmed mean that would trim nobody."""

    def __init__(self, count: int, beta: float) -> None:
        """Give the number of replies that is not enough."""
        self.count = count
        self.beta = beta
        super().__init__(
            f"a share of beta = {beta:g} of {count} replies is less than one, so that nothing "
            "would be trimmed: raise beta, or ask more clients (min_fit_clients)"
        )


def krum_needs(f: int) -> int:
    """Return how many replies Krum needs against ``f`` liars: Blanchard et al., 2f + 2 < n."""
    return 2 * f + 3


def bulyan_needs(f: int) -> int:
    """Return how many replies Bulyan needs against ``f`` liars: El Mhamdi et al., n >= 4f + 3."""
    return 4 * f + 3


def check_count(count: int, needed: int, why: str) -> None:
    """Raise `TooFewReplies` unless ``count`` replies are enough for ``why``."""
    if count < needed:
        raise TooFewReplies(count, needed, why)


def check_asked(options: FedAvgOptions, needed: int, why: str) -> None:
    """Refuse options with which every round has too few replies; warn of those that allow it.

    Raises:
        InvalidStrategyOption: rounds ask no more than ``min_fit_clients``, and these are too few.
    """
    if options.min_fit_clients >= needed:
        return
    problem = f"min_fit_clients is {options.min_fit_clients}, and {why} needs {needed} replies"
    if options.fraction_fit == 0:
        raise InvalidStrategyOption(f"{problem}: give min_fit_clients={needed} or more")
    logger.warning("%s: a round with fewer fails; raise min_fit_clients", problem)


def check_first_rule(rule: object, krum: object, arguments: Mapping[str, object]) -> None:
    """Refuse what Bulyan cannot choose results by, one after the other.

    Raises:
        InvalidStrategyOption: it is not ``krum``, or has ``arguments`` other than ``to_keep`` 0, 1.
    """
    if rule is not krum:
        raise InvalidStrategyOption(
            f"Bulyan's first rule is {rule!r}: give aggregate_krum of "
            "flmq.server.strategy.aggregate, or nothing"
        )
    unknown = sorted(arguments.keys() - {"to_keep"})
    if unknown:
        raise InvalidStrategyOption(f"aggregate_krum takes no argument {', '.join(unknown)}")
    if arguments.get("to_keep", 0) not in (0, 1):
        raise InvalidStrategyOption(
            f"to_keep is {arguments['to_keep']!r}: Bulyan chooses one result after the other, so "
            "give 0, or leave it out"
        )
