"""What each robust rule makes of models: a function of `Models`, one array for each tensor.

Blockwise over models on disk. Memory: blocks, and the tensor that is being made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from flmq.aggregation.tensors import averaged
from flmq.common.errors import ZeroWeight
from flmq.common.typing import NDArray
from flmq.server.strategy.blockwise import Models, Replies, coordinate_wise
from flmq.server.strategy.combine import AllReplies
from flmq.server.strategy.robust.coordinates import closest_to_median, mean, median, trimmed_mean
from flmq.server.strategy.robust.distances import squared_distances
from flmq.server.strategy.robust.needs import NothingToTrim, bulyan_needs, check_count, krum_needs
from flmq.server.strategy.robust.selection import bulyan_selection, krum_selection

__all__ = ["bulyan", "krum", "medians", "one_vote_each", "trimmed_means"]

_Tensors = Iterator[NDArray]


def one_vote_each(rule: Callable[[Models], Iterable[NDArray]]) -> AllReplies:
    """Combine by ``rule``, to which each client gives one model: its newest."""

    def of_newest(replies: Replies) -> Iterable[NDArray]:
        return rule(replies.newest())

    return AllReplies(of_newest, reals=True)


def medians(models: Models) -> _Tensors:
    """Yield the median of each coordinate.

    Raises:
        AggregationError: there are no models, they differ in form, or a median is not finite.
    """
    _check(models)
    return coordinate_wise(median)(models)


def trimmed_means(models: Models, beta: float) -> _Tensors:
    """Yield each coordinate's mean without the ``int(beta n)`` smallest and largest of n.

    Raises:
        NothingToTrim: that is none.
        AggregationError: as `medians`.
    """
    _check(models)
    cut = int(beta * len(models))
    if cut == 0:
        raise NothingToTrim(len(models), beta)
    return coordinate_wise(trimmed_mean(cut))(models)


def krum(models: Models, f: int, keep: int) -> _Tensors:
    """Yield the tensors of Krum's choice; if ``keep`` is not 0, the mean of so many best.

    Raises:
        TooFewReplies: fewer than 2f + 3 models, or than f more than are to be kept.
        AggregationError: as `medians`.
    """
    _check(models)
    check_count(len(models), krum_needs(f), f"Krum with num_malicious = {f}")
    check_count(len(models), keep + f, f"keeping {keep} with num_malicious = {f}")
    best = krum_selection(squared_distances(models), f, max(1, keep))
    if keep:
        yield from coordinate_wise(mean)(models.subset(sorted(best)))
        return
    for index in range(len(models.specs)):
        yield models.tensor(best[0], index)


def bulyan(models: Models, f: int) -> _Tensors:
    """Yield each coordinate's mean of the n - 4f nearest to the median of n - 2f chosen models.

    Raises:
        TooFewReplies: fewer than 4f + 3 models.
        AggregationError: as `medians`.
    """
    _check(models)
    n = len(models)
    check_count(n, bulyan_needs(f), f"Bulyan with num_malicious = {f}")
    chosen = models.subset(bulyan_selection(squared_distances(models), f))
    yield from coordinate_wise(closest_to_median(n - 4 * f))(chosen)


def _check(models: Models) -> None:
    """Check that there are models, of tensors of real numbers."""
    if not len(models):
        raise ZeroWeight("nothing to combine: there are no results")
    for spec in models.specs:
        averaged(spec)
