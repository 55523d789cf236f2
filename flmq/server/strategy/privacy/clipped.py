"""Replies as a private strategy may see them: clipped, and each with one example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast, overload

import numpy as np

from flmq.common.clipping import (
    clip_factor,
    clipped,
    moved,
    sum_of_squares,
    update_norm,
    updates,
)
from flmq.common.dtypes import FloatFormat, is_float
from flmq.common.errors import AggregationError
from flmq.common.parameter import bytes_to_ndarray, ndarray_to_bytes, parameters_to_ndarrays
from flmq.common.typing import FitRes, NDArray, Parameters
from flmq.server.strategy.combine import Combine, Combined

__all__ = ["ClippedParameters", "ClippedReplies", "RepliedTwice", "Update", "named", "uniform"]


class RepliedTwice(AggregationError):
    """A client has two replies in one round, so that it could change twice what it may."""

    def __init__(self, client_id: str) -> None:
        """Name the client."""
        self.client_id = client_id
        super().__init__(f"{client_id} has two replies in this round, and each client may have one")


@dataclass(frozen=True, slots=True)
class Update:
    """One client's update: how far it is from the model, and what it is scaled by."""

    norm: float
    factor: float
    exceeded: bool
    """Whether the norm is above what rounding alone can make of an update that was clipped."""

    @classmethod
    def of(cls, client_id: str, res: FitRes, model: Parameters, clipping_norm: float) -> Update:
        """Measure the update of a reply.

        Raises:
            AggregationError: it does not fit the model, or is not finite; names the client.
        """
        trained, old = _arrays(res.parameters), _arrays(model)
        try:
            norm = update_norm(trained, old)
        except AggregationError as error:
            raise type(error)(f"the reply of {client_id}: {error}") from error
        exceeded = norm > clipping_norm and norm > clipping_norm + _rounding(trained)
        return cls(norm, clip_factor(norm, clipping_norm), exceeded)

    def tensors(self, res: FitRes, model: Parameters) -> Iterator[NDArray]:
        """Yield the clipped update of each tensor of floating point, in float64."""
        for each in updates(_arrays(res.parameters), _arrays(model)):
            yield clipped(each, self.factor)


class ClippedParameters(Parameters):
    """``model`` plus a clipped update. Computed on access, so that it takes no memory."""

    def __init__(self, res: FitRes, model: Parameters, factor: float) -> None:
        """Represent ``model + factor * (res.parameters - model)``."""
        self.tensor_type = model.tensor_type
        self.names = model.names
        self._tensors = _ClippedTensors(res.parameters, model, factor)

    @property
    def tensors(self) -> list[bytes]:
        """The tensors, each computed when it is taken."""
        return cast("list[bytes]", self._tensors)

    @tensors.setter
    def tensors(self, tensors: list[bytes]) -> None:
        self._tensors = cast("_ClippedTensors", tensors)


class _ClippedTensors(Sequence[bytes]):
    def __init__(self, trained: Parameters, model: Parameters, factor: float) -> None:
        self._trained, self._model, self._factor = trained, model, factor

    def __len__(self) -> int:
        return len(self._model.tensors)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        sent = self._model.tensors[index]
        old = bytes_to_ndarray(sent, copy=False)
        if not is_float(old.dtype):
            return sent
        new = bytes_to_ndarray(self._trained.tensors[index], copy=False)
        if self._factor == 1.0:
            return ndarray_to_bytes(new)
        (update,) = updates([new], [old])
        return ndarray_to_bytes(moved(old, clipped(update, self._factor)))


class ClippedReplies:
    """A `Combine` around that of a strategy which does not take the mean: it gets clipped replies.

    How much one client can change what such a strategy makes of them is not known here.
    """

    def __init__(self, inner: Combine, model: Parameters, clipping_norm: float) -> None:
        """Clip updates of ``model`` to ``clipping_norm``, and give them to ``inner``."""
        self.updates: dict[str, Update] = {}
        self._inner = inner
        self._model = model
        self._clipping_norm = clipping_norm

    def add(self, client_id: str, res: FitRes) -> None:
        """Clip one reply.

        Raises:
            AggregationError: it does not fit the model, or its client has one already.
        """
        if client_id in self.updates:
            raise RepliedTwice(client_id)
        update = Update.of(client_id, res, self._model, self._clipping_norm)
        self._inner.add(client_id, uniform(res, ClippedParameters(res, self._model, update.factor)))
        self.updates[client_id] = update

    def merge(self, other: ClippedReplies) -> None:
        """Add everything that ``other`` was given.

        Raises:
            RepliedTwice: a client is in both.
        """
        for client_id in sorted(self.updates.keys() & other.updates.keys()):
            raise RepliedTwice(client_id)
        self._inner.merge(other._inner)
        self.updates |= other.updates

    def finish(self) -> Combined:
        """Return what the strategy makes of the clipped replies."""
        return self._inner.finish()


def named(client_ids: Sequence[str]) -> str:
    """Return some of these ids, and how many more there are."""
    more = f", and {len(client_ids) - 5} more" if len(client_ids) > 5 else ""
    return ", ".join(client_ids[:5]) + more


def uniform(res: FitRes, parameters: Parameters, without: str | None = None) -> FitRes:
    """Return ``res`` with these parameters and one example; without one of its metrics."""
    metrics = {name: value for name, value in res.metrics.items() if name != without}
    return replace(res, parameters=parameters, num_examples=1, metrics=metrics)


def _arrays(parameters: Parameters) -> list[NDArray]:
    return parameters_to_ndarrays(parameters, copy=False)


def _rounding(trained: Sequence[NDArray]) -> float:
    """Return by how much rounding to the tensors' dtypes may have lengthened a clipped update."""
    total = 0.0
    for each in trained:
        if is_float(each.dtype):
            total += sum_of_squares([each.astype(np.float64)]) * 2.0 ** (
                2 - 2 * FloatFormat.of(each.dtype).precision
            )
    return float(np.sqrt(total))
