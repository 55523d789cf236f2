"""The first step of FedNova: the exact mean of updates that are each divided by their steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from flmq.aggregation import weighted_mean_of_scalars
from flmq.common.dtypes import is_float
from flmq.common.errors import InconsistentTensors
from flmq.common.learning import TAU, working_dtype
from flmq.common.parameter import parameters_to_ndarrays
from flmq.common.typing import FitRes, NDArray, NDArrays
from flmq.server.strategy.combine import Combined, WeightedMean

__all__ = ["NormalizedMean"]


class NormalizedMean(WeightedMean):
    """``(sum p_i tau_i) (sum p_i (w_i - w) / tau_i)`` over replies i, from exact sums.

    For tensors of integers and booleans, which are not trained, ``sum p_i w_i``. Each term is
    rounded to float32 (float64 for a float64 tensor) before it is added.
    """

    def __init__(self, model: NDArrays) -> None:
        """Take differences from ``model``, w."""
        super().__init__()
        self._model = model
        self._taus: list[tuple[int, float]] = []

    def contribution(self, client_id: str, res: FitRes) -> tuple[NDArrays, int]:
        """Return ``(w_i - w) / tau_i``, and n_i."""
        got, tau = parameters_to_ndarrays(res.parameters, copy=False), _tau(res)
        if [x.shape for x in got] != [x.shape for x in self._model]:
            raise InconsistentTensors(f"the reply of {client_id} has not the model's shapes")
        return [_normalized(*pair, tau) for pair in zip(got, self._model, strict=True)], (
            res.num_examples
        )

    def add(self, client_id: str, res: FitRes) -> None:
        """Add one reply.

        Raises:
            AggregationError: it does not match the model; names it.
        """
        super().add(client_id, res)
        self._taus.append((res.num_examples, _tau(res)))

    def merge(self, other: WeightedMean) -> None:
        """Add everything that ``other`` was given.

        Raises:
            InconsistentTensors: it does not match.
        """
        super().merge(other)
        self._taus += cast("NormalizedMean", other)._taus

    def finish(self) -> Combined:
        """Return the update of the model.

        Raises:
            ZeroWeight: nothing was added.
        """
        mean = super().finish()
        tau_eff = weighted_mean_of_scalars(self._taus) or 0.0
        self._taus = []

        def changes() -> Iterator[NDArray]:
            for w, d in zip(self._model, mean, strict=True):
                yield np.asarray(tau_eff * d, d.dtype) if is_float(w.dtype) else d

        return Combined(mean.num_replies, mean.num_examples, changes)


def _normalized(w_i: NDArray, w: NDArray, tau: float) -> NDArray:
    if not is_float(w.dtype):
        return w_i
    return np.asarray(np.subtract(w_i, w, dtype=working_dtype(w.dtype)) / tau)


def _tau(res: FitRes) -> float:
    return cast("float", res.metrics[TAU])
