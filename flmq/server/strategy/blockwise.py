"""Read all replies of a round block by block: memory is one block's, however many there are.

For rules that need the numbers of all replies at once: a median or a trimmed mean of each
coordinate, distances between replies. Replies stay on disk; each block's numbers are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np

from flmq.common.errors import InconsistentTensors, InvalidReturnValue, MalformedMessage
from flmq.common.parameter import TensorSpec, bytes_to_ndarray, tensor_spec
from flmq.common.tensor_names import tensor_called
from flmq.common.typing import FitRes, NDArray, Parameters
from flmq.server.strategy.late import round_asked
from flmq.wire import FileParameters, refer

__all__ = ["BLOCK_BYTES", "Block", "Replies", "coordinate_wise"]

BLOCK_BYTES = 8 << 20
"""Bytes of one block, over all replies together."""


class Block(NamedTuple):
    """The same stretch of one tensor from each reply."""

    start: int
    """Flat position (C order) of the first number in the tensor."""
    values: NDArray
    """Shape (replies, numbers), the tensor's dtype; a copy, whose memory the next block reuses."""


class Replies(Sequence[tuple[str, FitRes]]):
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

    def blocks(self, tensor: int, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
        """Yield tensor number ``tensor`` of all replies, one stretch at a time.

        A block takes ``block_bytes``, or one number of each reply if that is more. Use it before
        the next one: its memory is reused.

        Raises:
            InconsistentTensors: as `specs`.
            RunError, StoredDataError: a reply cannot be read from disk.
        """
        spec, count = self.specs[tensor], len(self._replies)
        length = min(spec.size, max(1, block_bytes // (count * spec.dtype.itemsize)))
        memory = np.empty(count * length, spec.dtype.newbyteorder("="))
        for start in range(0, spec.size, max(1, length)):
            stop = min(spec.size, start + length)
            values = memory[: count * (stop - start)].reshape(count, stop - start)
            for row, (_, res) in zip(values, self._replies, strict=True):
                # Unmapped at once: the system does not allow thousands of mapped files at a time.
                row[:] = _stretch(_tensor(res.parameters, tensor), start, stop)
            yield Block(start, values)


def coordinate_wise(
    rule: Callable[[NDArray], NDArray], block_bytes: int = BLOCK_BYTES
) -> Callable[[Replies], Iterator[NDArray]]:
    """Return a rule for `AllReplies` that treats each coordinate separately.

    ``rule`` gets arrays of shape (replies, numbers), which it may change, and returns the
    ``numbers`` results: ``lambda values: numpy.median(values, axis=0)``. Integers are rounded to
    the nearest, half to even.

    Raises:
        InvalidReturnValue: it returns another shape.
    """

    def each_tensor(replies: Replies) -> Iterator[NDArray]:
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
                tensor[start : start + numbers] = _rounded(came_to, spec.dtype)
            yield tensor.reshape(spec.shape)

    return each_tensor


def _place(reply: tuple[str, FitRes]) -> tuple[str, float, int, str]:
    """Return the sort key of a reply: ultimately its content, never its arrival."""
    client_id, res = reply
    parameters = res.parameters
    if isinstance(parameters, FileParameters) and parameters.untouched:
        digest = parameters.ref.digest
    else:
        digest = refer(parameters).digest
    return client_id, round_asked(res), res.num_examples, digest


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


def _tensor(parameters: Parameters, index: int) -> NDArray:
    """Return one tensor as a view; a file gets a mapping of its own, closed with the view."""
    if isinstance(parameters, FileParameters) and parameters.untouched:
        return bytes_to_ndarray(parameters.tensor(index), copy=False)
    return bytes_to_ndarray(parameters.tensors[index], copy=False)


def _stretch(tensor: NDArray, start: int, stop: int) -> NDArray:
    """Return numbers ``start`` to ``stop`` in C order, without copying the others."""
    if tensor.flags.c_contiguous:
        return tensor.reshape(-1)[start:stop]
    return tensor.flat[start:stop]


def _rounded(numbers: NDArray, dtype: np.dtype[np.generic]) -> NDArray:
    if numbers.dtype.kind == "f" and dtype.kind in "iu":
        return np.rint(numbers).astype(dtype)
    if numbers.dtype.kind == "f" and dtype.kind == "b":
        return numbers > 0.5
    return numbers.astype(dtype, copy=False)
