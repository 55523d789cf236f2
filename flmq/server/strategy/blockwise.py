"""Read all replies of a round block by block: memory is one block's, however many there are.

For rules that need the numbers of all replies at once: a median or a trimmed mean of each
coordinate, distances between replies. Replies stay on disk; each block's numbers are copied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np

from flmq.common.dtypes import nearest
from flmq.common.errors import InconsistentTensors, InvalidReturnValue, MalformedMessage
from flmq.common.parameter import TensorSpec, bytes_to_ndarray, tensor_spec
from flmq.common.tensor_names import tensor_called
from flmq.common.typing import FitRes, NDArray, NDArrays, Parameters
from flmq.round.keys import client_of
from flmq.server.strategy.late import round_asked
from flmq.wire import FileParameters, ref_of, refer

__all__ = ["BLOCK_BYTES", "Arrays", "Block", "Models", "Replies", "coordinate_wise"]

BLOCK_BYTES = 8 << 20
"""Bytes of one block, over all replies together."""


class Block(NamedTuple):
    """The same stretch of one tensor from each reply."""

    start: int
    """Flat position (C order) of the first number in the tensor."""
    values: NDArray
    """Shape (replies, numbers), the tensor's dtype; a copy, whose memory the next block reuses."""


class Models(ABC):
    """Models of one form, in an order that does not depend on how they came."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of models."""

    @property
    @abstractmethod
    def specs(self) -> tuple[TensorSpec, ...]:
        """Shape and dtype of each tensor, the same in all models.

        Raises:
            InconsistentTensors: they differ, or a tensor cannot be read; names model and tensor.
        """

    @abstractmethod
    def tensor(self, row: int, tensor: int) -> NDArray:
        """Return tensor number ``tensor`` of model number ``row``, as a view to read soon."""

    @abstractmethod
    def subset(self, rows: Sequence[int]) -> Models:
        """Return the models of these numbers alone, in the order of the numbers given."""

    def blocks(self, tensor: int, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """Yield tensor number ``tensor`` of all models, one stretch at a time.

        A block takes ``block_bytes``, or one number of each model if that is more. Use it before
        the next one: its memory is reused.

        Raises:
            InconsistentTensors: as `specs`.
            RunError, StoredDataError: a reply cannot be read from disk.
        """
        spec, count = self.specs[tensor], len(self)
        length = min(spec.size, max(1, block_bytes // (count * spec.dtype.itemsize)))
        memory = np.empty(count * length, spec.dtype)
        for start in range(0, spec.size, max(1, length)):
            stop = min(spec.size, start + length)
            values = memory[: count * (stop - start)].reshape(count, stop - start)
            for row, numbers in enumerate(values):
                # Unmapped at once: the system does not allow thousands of mapped files at a time.
                numbers[:] = _stretch(self.tensor(row, tensor), start, stop)
            yield Block(start, values)


class Replies(Models, Sequence[tuple[str, FitRes]]):
    """Client ids and their replies, in the order of client ids, a client's older ones first."""

    def __init__(self, replies: Iterable[tuple[str, FitRes]]) -> None:
        """Sort ``replies``, in whichever order they came."""
        self._replies = sorted(replies, key=_place)

    @overload
    def __getitem__(self, index: int) -> tuple[str, FitRes]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, FitRes]]: ...

    def __getitem__(self, index: int | slice) -> tuple[str, FitRes] | Sequence[tuple[str, FitRes]]:
        """Return one reply, or some."""
        return self._replies[index]

    def __len__(self) -> int:
        """Return the number of replies."""
        return len(self._replies)

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Shape and dtype of each tensor, the same in all replies.

        Raises:
            InconsistentTensors: they differ, or a tensor cannot be read; names client and tensor.
        """
        first: tuple[TensorSpec, ...] | None = None
        for client_id, res in self._replies:
            specs = _specs_of(client_id, res.parameters)
            if first is None:
                first = specs
            elif specs != first:
                raise InconsistentTensors(
                    f"the reply of {client_id} has tensors {_text(specs)}, that of "
                    f"{self._replies[0][0]} {_text(first)}"
                )
        return first or ()

    def tensor(self, row: int, tensor: int) -> NDArray:
        """Return a tensor of a reply; that of a file has a mapping of its own, closed with it."""
        parameters = self._replies[row][1].parameters
        if isinstance(parameters, FileParameters) and parameters.untouched:
            return bytes_to_ndarray(parameters.tensor(tensor), copy=False)
        return bytes_to_ndarray(parameters.tensors[tensor], copy=False)

    def subset(self, rows: Sequence[int]) -> Replies:
        """Return some of the replies."""
        return self._of([self._replies[row] for row in rows])

    def newest(self) -> Replies:
        """Return one reply of each client, its newest: of one round's, the last of these."""
        return self._of(list({client_of(name): (name, res) for name, res in self}.values()))

    @classmethod
    def _of(cls, replies: list[tuple[str, FitRes]]) -> Replies:
        """Return ``replies`` as they stand."""
        some = cls(())
        some._replies = replies
        return some


class Arrays(Models):
    """Models in memory, in the order of their contents."""

    def __init__(self, models: Iterable[NDArrays]) -> None:
        """Sort ``models``, in whichever order they came."""
        self._models = [[np.asarray(tensor) for tensor in model] for model in models]
        self._models.sort(key=_digest)

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self._models)

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Shape and dtype of each tensor, the same in all models.

        Raises:
            InconsistentTensors: they differ.
        """
        each = [tuple(map(TensorSpec.of, model)) for model in self._models]
        for specs in each:
            if specs != each[0]:
                raise InconsistentTensors(
                    f"one of the models has tensors {_text(specs)}, another {_text(each[0])}"
                )
        return each[0] if each else ()

    def tensor(self, row: int, tensor: int) -> NDArray:
        """Return a tensor of a model."""
        return self._models[row][tensor]

    def subset(self, rows: Sequence[int]) -> Arrays:
        """Return some of the models."""
        some = Arrays(())
        some._models = [self._models[row] for row in rows]
        return some


def coordinate_wise(
    rule: Callable[[NDArray], NDArray], block_bytes: int = BLOCK_BYTES
) -> Callable[[Models], Iterator[NDArray]]:
    """Return a rule for `AllReplies` that treats each coordinate separately.

    ``rule`` gets arrays of shape (replies, numbers), which it may change, and returns the
    ``numbers`` results: ``lambda values: numpy.median(values, axis=0)``. Integers are rounded to
    the nearest, half to even.

    Raises:
        InvalidReturnValue: it returns another shape.
    """

    def each_tensor(replies: Models) -> Iterator[NDArray]:
        for index, spec in enumerate(replies.specs):
            tensor = np.empty(spec.size, spec.dtype)
            for start, values in replies.blocks(index, block_bytes):
                numbers = values.shape[1]
                came_to = np.asarray(rule(values))
                if came_to.shape != (numbers,):
                    raise InvalidReturnValue(
                        f"a coordinate-wise rule made shape {came_to.shape} of {values.shape}, not "
                        f"({numbers},): let it go along axis 0, as numpy.median(values, axis=0)"
                    )
                tensor[start : start + numbers] = nearest(came_to, spec.dtype)
            yield tensor.reshape(spec.shape)

    return each_tensor


def _place(reply: tuple[str, FitRes]) -> tuple[str, float, int, str]:
    """Return the sort key of a reply: ultimately its content, never its arrival."""
    client_id, res = reply
    return client_id, round_asked(res), res.num_examples, ref_of(res.parameters).digest


def _digest(model: NDArrays) -> str:
    """Return the digest of a model's numbers, without copying them."""
    flat = [np.ascontiguousarray(tensor).reshape(-1).view(np.uint8) for tensor in model]
    return refer(Parameters([tensor.data for tensor in flat], "numpy.ndarray")).digest  # type: ignore[misc]


def _specs_of(client_id: str, parameters: Parameters) -> tuple[TensorSpec, ...]:
    specs = []
    for index, tensor in enumerate(parameters.tensors):
        try:
            specs.append(tensor_spec(tensor))
        except MalformedMessage as error:
            called = tensor_called(index, parameters.names)
            raise InconsistentTensors(f"{called} of {client_id}: {error}") from error
    return tuple(specs)


def _text(specs: Sequence[TensorSpec]) -> str:
    shown = ", ".join(map(str, specs[:5]))
    return f"{shown}, and {len(specs) - 5} more" if len(specs) > 5 else shown


def _stretch(tensor: NDArray, start: int, stop: int) -> NDArray:
    """Return numbers ``start`` to ``stop`` in C order, without copying the others."""
    if tensor.flags.c_contiguous:
        return tensor.reshape(-1)[start:stop]
    return tensor.flat[start:stop]
