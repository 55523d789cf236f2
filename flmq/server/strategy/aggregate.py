"""Weighted means of what clients sent, under the names that Flower programs import.

All are exact: they do not depend on the order of ``results``, and are rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from flmq.aggregation import weighted_mean, weighted_mean_of_scalars
from flmq.common.errors import InconsistentTensors, ZeroWeight
from flmq.common.typing import FitRes, Metrics, NDArrays, Scalar
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.combine import WeightedMean
from flmq.server.strategy.robust.aggregate import (
    aggregate_bulyan,
    aggregate_krum,
    aggregate_median,
    aggregate_trimmed_avg,
)

__all__ = [
    "aggregate",
    "aggregate_bulyan",
    "aggregate_inplace",
    "aggregate_krum",
    "aggregate_median",
    "aggregate_qffl",
    "aggregate_trimmed_avg",
    "weighted_loss_avg",
    "weighted_metrics_avg",
]


def aggregate(results: Iterable[tuple[NDArrays, int]]) -> NDArrays:
    """Return ``sum(num_examples * tensors) / sum(num_examples)``, in the tensors' own dtypes.

    Raises:
        ZeroWeight: there are no results, or none has examples.
        InconsistentTensors: counts, shapes or dtypes differ.
        NonFiniteValues: a tensor holds NaN or infinity.
    """
    return weighted_mean(results)


def aggregate_inplace(results: Sequence[tuple[ClientProxy, FitRes]]) -> NDArrays:
    """Return the mean of replies' parameters as `aggregate` does, read one reply at a time.

    Raises:
        AggregationError: as `aggregate`; names the client.
    """
    mean = WeightedMean()
    for client, res in results:
        mean.add(client.cid, res)
    return mean.finish().ndarrays()


def aggregate_qffl(
    parameters: NDArrays, deltas: list[NDArrays], hs_fll: list[NDArrays]
) -> NDArrays:
    """Return ``parameters - sum(deltas) / sum(hs_fll)``, in the tensors' own dtypes.

    Li et al., 2020, arXiv:1905.10497, Algorithm 2. ``deltas`` has a list of arrays for each client,
    shaped like ``parameters``; ``hs_fll`` a number.

    Raises:
        ZeroWeight: there are no deltas, or ``hs_fll`` add up to 0.
        InconsistentTensors: shapes differ, or the dtypes of deltas among themselves.
        NonFiniteValues: a delta holds NaN or infinity.
    """
    denominator = math.fsum(float(each) for h in hs_fll for each in np.ravel(h))
    means = weighted_mean((delta, 1) for delta in deltas)  # exact, so in any order
    if not denominator:
        raise ZeroWeight("no step: hs_fll add up to 0")
    if [x.shape for x in parameters] != [mean.shape for mean in means]:
        raise InconsistentTensors("deltas do not have the shapes of the parameters")
    share = len(deltas) / denominator
    return [(x - share * mean).astype(x.dtype) for x, mean in zip(parameters, means, strict=True)]


def weighted_loss_avg(results: list[tuple[int, float]]) -> float:
    """Return ``sum(num_examples * loss) / sum(num_examples)`` of ``(num_examples, loss)`` pairs.

    Raises:
        ZeroWeight: there are no results, or none has examples.
        NonFiniteValues: a loss is NaN or infinity.
    """
    mean = weighted_mean_of_scalars(results)
    if mean is None:
        raise ZeroWeight("no mean of losses: there are no results, or none has examples")
    return mean


def weighted_metrics_avg(results: Sequence[tuple[int, Metrics]]) -> Metrics:
    """Return ``sum(num_examples * metric) / sum(num_examples)`` of each numeric metric.

    A metric is averaged over the clients that have it. Bools, strings and bytes have no mean and
    are left out, and so are metrics that no client with examples has. Keys are sorted. NaN and
    infinity stay visible: the mean is then NaN or infinity.
    """
    names = sorted({name for _, metrics in results for name in metrics})
    means = {
        name: _mean([(weight, metrics[name]) for weight, metrics in results if name in metrics])
        for name in names
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def _mean(pairs: list[tuple[int, Scalar]]) -> float | None:
    """Return the weighted mean of the numbers among the values; None if no number has a weight."""
    numbers = [
        (weight, value)
        for weight, value in pairs
        if weight and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    special = [float(value) for _, value in numbers if not math.isfinite(value)]
    # The sum of specials is the same in every order: NaN if there is one or both infinities.
    return sum(special) if special else weighted_mean_of_scalars(numbers)
