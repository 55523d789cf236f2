"""The exact sum of a buffer's updates, each with the weight of its staleness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np

from flmq.aggregation import MeanAccumulator, TensorSpec
from flmq.common.dtypes import is_float, nearest
from flmq.common.errors import (
    AggregationError,
    InconsistentTensors,
    NonFiniteValues,
    StoredDataError,
    ZeroWeight,
)
from flmq.common.parameter import ndarray_to_bytes, parameters_to_ndarrays
from flmq.common.typing import FitRes, NDArray, Parameters
from flmq.server.strategy.combine import Combined
from flmq.server.strategy.steps import moved as along

__all__ = ["BaseNotKept", "UpdateRes", "UpdateSum", "moved"]


class BaseNotKept(AggregationError):
    """The model that a client trained from can no longer be read."""

    def __init__(self, client_id: str, error: Exception) -> None:
        """Name the client whose update is lost, and the cause."""
        self.client_id = client_id
        super().__init__(
            f"the model that {client_id} trained from is no longer kept ({error}): its update is "
            "dropped, and it is asked anew"
        )


@dataclass
class UpdateRes(FitRes):
    """A fit reply in a buffer: what it was trained from, and how stale it is."""

    trained_from: Parameters = field(default_factory=lambda: Parameters([], "numpy.ndarray"))
    staleness: int = 0
    """Steps that the model made between the ask and the buffer."""

    @classmethod
    def of(cls, res: FitRes, trained_from: Parameters, staleness: int) -> UpdateRes:
        """Return ``res`` with what the server knows of its ask."""
        values = {each.name: getattr(res, each.name) for each in fields(FitRes)}
        return cls(**values, trained_from=trained_from, staleness=staleness)


class UpdateSum:
    """``sum_k s(staleness_k) (w_k - base_k)`` in float64, exact but for each term's own rounding.

    A term is a function of its reply alone, and terms are added exactly: the same bits in every
    order. `finish` gives the mean, which is the sum over the number of updates. Memory is that of
    one `MeanAccumulator` of float64, whatever the number of updates.
    """

    def __init__(
        self, weight: Callable[[int], float], model: Parameters, *, from_model: bool = False
    ) -> None:
        """Weigh by ``weight``. ``model`` is the present one, which a plain `FitRes` started from.

        If ``from_model``, it is subtracted from every reply, whatever that was trained from.
        """
        self._weight = weight
        self._model = model
        self._from_model = from_model
        self._sum: MeanAccumulator | None = None
        self._examples = 0

    def add(self, client_id: str, res: FitRes) -> None:
        """Add one update.

        Raises:
            BaseNotKept: what it was trained from cannot be read.
            AggregationError: it does not match those before, or overflows; nothing changed.
        """
        base, weight = self._model, self._weight(0)
        if isinstance(res, UpdateRes):
            weight = self._weight(res.staleness)
            base = self._model if self._from_model else res.trained_from
        old = _readable(client_id, base)
        got = parameters_to_ndarrays(res.parameters, copy=False)
        if [tensor.shape for tensor in got] != [tensor.shape for tensor in old]:
            raise InconsistentTensors(f"the reply of {client_id} has not the model's shapes")
        specs = [TensorSpec(tensor.shape, np.dtype(np.float64)) for tensor in got]
        total = MeanAccumulator(specs) if self._sum is None else self._sum
        done = 0
        try:
            for index, (after, before) in enumerate(zip(got, old, strict=True)):
                total.add_block(index, 0, _term(after, before, weight), 1)
                done += 1
        except (InconsistentTensors, NonFiniteValues) as error:
            for index, (after, before) in enumerate(zip(got[:done], old, strict=False)):
                total.take_back_block(index, 0, _term(after, before, weight), 1)
            raise type(error)(f"the update of {client_id}: {error}") from error
        total.add_weight(1)
        self._sum = total
        self._examples += res.num_examples

    def merge(self, other: UpdateSum) -> None:
        """Add everything that ``other`` was given."""
        if other._sum is not None:
            total = MeanAccumulator(other._sum.specs) if self._sum is None else self._sum
            total.merge(other._sum)
            self._sum = total
        self._examples += other._examples

    def finish(self) -> Combined:
        """Return the sum over the number of updates, in float64.

        Raises:
            ZeroWeight: there are no updates.
        """
        total, examples = self._sum, self._examples
        self._sum, self._examples = None, 0
        if total is None:
            raise ZeroWeight("nothing to step along: the buffer is empty")
        return Combined(total.weight, examples, total.means)


def moved(model: Parameters, change: Combined, by: float) -> Parameters:
    """Return ``model + by * change``, computed in float64 and rounded once to the model's dtypes.

    Integers are rounded to the nearest, half to even. One tensor at a time is in memory besides the
    result.

    Raises:
        NonFiniteValues: numbers became NaN or infinity.
    """
    old = parameters_to_ndarrays(model, copy=False)
    tensors = [ndarray_to_bytes(tensor) for tensor in _moved(old, change, by)]
    return Parameters(tensors, model.tensor_type, model.names)


def _moved(old: list[NDArray], change: Combined, by: float) -> Iterator[NDArray]:
    for index, (tensor, step) in enumerate(zip(old, change, strict=True)):
        if is_float(tensor.dtype):
            new = along(index, tensor, by * step)
        else:
            new = nearest(np.asarray(tensor + by * step), tensor.dtype)
        # What does not move keeps its bits: -0.0, and integers that float64 does not hold.
        np.copyto(new, tensor, where=step == 0)
        yield new


def _term(after: NDArray, before: NDArray, weight: float) -> NDArray:
    """Return a tensor's weighted difference, flat."""
    difference = after.astype(np.float64)
    difference -= before
    difference *= weight
    return difference.ravel()


def _readable(client_id: str, base: Parameters) -> list[NDArray]:
    try:
        return parameters_to_ndarrays(base, copy=False)
    except StoredDataError as error:
        raise BaseNotKept(client_id, error) from error
