"""The robust rules on arrays in memory, under the names that Flower programs import.

Each takes ``results``, pairs of arrays and ``num_examples``, and pays no heed to the latter. The
bits of what it returns do not depend on their order; dtypes are those that came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flmq.common.typing import NDArrays
from flmq.server.strategy.blockwise import Arrays
from flmq.server.strategy.robust import rules
from flmq.server.strategy.robust.needs import check_first_rule

__all__ = ["aggregate_bulyan", "aggregate_krum", "aggregate_median", "aggregate_trimmed_avg"]

_Results = Iterable[tuple[NDArrays, int]]


def aggregate_median(results: _Results) -> NDArrays:
    """Return the median of each coordinate.

    Raises:
        AggregationError: there are no results, they differ in form, or a median is not finite.
    """
    return list(rules.medians(_models(results)))


def aggregate_trimmed_avg(results: _Results, proportiontocut: float) -> NDArrays:
    """Return each coordinate's mean without that share of its smallest and of its largest.

    Raises:
        NothingToTrim: the share is less than one result.
        ValueError: it is not in the range [0, 0.5).
        AggregationError: as `aggregate_median`.
    """
    if not 0 <= proportiontocut < 0.5:
        raise ValueError(f"proportiontocut is {proportiontocut!r}: give 0 or more, below 0.5")
    return list(rules.trimmed_means(_models(results), proportiontocut))


def aggregate_krum(results: _Results, num_malicious: int, to_keep: int) -> NDArrays:
    """Return Krum's choice; if ``to_keep`` is not 0, the mean of so many best (MultiKrum).

    The mean takes each alike, as the paper's does; Flower weighs by ``num_examples``.

    Raises:
        TooFewReplies: fewer results than 2 ``num_malicious`` + 3, or than are to be kept and
            ``num_malicious`` more.
        ValueError: a negative number.
        AggregationError: as `aggregate_median`.
    """
    _check(num_malicious=num_malicious, to_keep=to_keep)
    return [tensor.copy() for tensor in rules.krum(_models(results), num_malicious, to_keep)]


def aggregate_bulyan(
    results: _Results,
    num_malicious: int,
    aggregation_rule: Callable[..., Any] = aggregate_krum,
    **aggregation_rule_kwargs: Any,
) -> NDArrays:
    """Return Bulyan's mean of the results that ``aggregation_rule`` chooses one after the other.

    The rule is `aggregate_krum`; Flower, too, knows no other. ``results`` stay as they are, from
    which Flower's removes what it chose.

    Raises:
        TooFewReplies: fewer results than 4 ``num_malicious`` + 3.
        ValueError: a negative number; another rule, or one that chooses several at once.
        AggregationError: as `aggregate_median`.
    """
    _check(num_malicious=num_malicious)
    check_first_rule(aggregation_rule, aggregate_krum, aggregation_rule_kwargs)
    return list(rules.bulyan(_models(results), num_malicious))


def _models(results: _Results) -> Arrays:
    return Arrays(arrays for arrays, _ in results)


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"{name} is {number!r}: give 0 or more")
