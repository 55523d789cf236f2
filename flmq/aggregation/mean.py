"""The exact weighted mean of lists of tensors: the same bits for every order and every tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.aggregation.limbs import BlockSum, empty_sums
from flmq.aggregation.pieces import BLOCK, MinusZeros, Scratch, pieces_of
from flmq.aggregation.quotients import write_means
from flmq.aggregation.stored import dump_sums, load_sums
from flmq.aggregation.tensors import TensorSpec, averaged, check_specs, check_tensors, specs_of
from flmq.aggregation.weights import checked_weight
from flmq.common.errors import InconsistentTensors, NonFiniteValues, ZeroWeight
from flmq.common.tensor_names import tensor_called

__all__ = ["MeanAccumulator", "weighted_mean"]


def weighted_mean(results: Iterable[tuple[Sequence[NDArray[Any]], int]]) -> list[NDArray[Any]]:
    """Return ``sum(weight * tensors) / sum(weight)``: exact, rounded once, in each tensor's dtype.

    ``results`` yields pairs of tensors and weight, consumed one at a time; memory does not grow
    with their number. The first pair fixes the shapes and dtypes of all. The rules are those of
    ``MeanAccumulator``.

    Raises:
        ZeroWeight: there are no results, or all weights are zero.
        InconsistentTensors: counts, shapes or dtypes differ; names result and tensor by position.
        NonFiniteValues: NaN or infinity; names result and tensor by position.
        AggregationError: a weight is negative or not an integer.
    """
    accumulator: MeanAccumulator | None = None
    for position, (tensors, weight) in enumerate(results):
        try:
            if accumulator is None:
                accumulator = MeanAccumulator(specs_of(tensors))
            accumulator.add(tensors, weight)
        except (InconsistentTensors, NonFiniteValues) as error:
            raise type(error)(f"result {position}: {error}") from error
    if accumulator is None:
        raise ZeroWeight("nothing to average: there are no results")
    return accumulator.finish()


class MeanAccumulator:
    """Exact weighted sum of lists of tensors; ``finish`` turns it into the mean.

    Laws, on the bits of ``finish()``:

    - the order of ``add`` and ``add_block`` does not matter, nor how a tensor is cut into blocks;
    - ``merge`` is associative and commutative, and merging equals adding what the other was given:
      every tree of partial sums ends in the same bits;
    - ``take_back_block`` undoes ``add_block``; an ``add`` that raises has changed nothing;
    - ``from_bytes(a.to_bytes())`` continues exactly as ``a`` would.

    They hold because sums are exact, whatever the magnitudes, and the mean is a function of the
    exact sum and the total weight alone. It is the number of the tensor's dtype **nearest** to the
    true mean, half to even, subnormal numbers included:

    - float16, float32, float64, bfloat16 and float8: correctly rounded; never overflows, as a mean
      lies among its values. Zero is +0.0, but -0.0 where every number with a weight was -0.0.
    - integers, of all widths and signs: the nearest integer, a half to the even one.
    - bool: as 0 and 1, so the weighted majority, and False for a tie.

    The byte order of what is added does not matter; means are in this machine's.

    Memory: usually 8 bytes an element; 16 for float64, when the total weight passes a million, or
    when many numbers are smaller than the largest by a factor of 2**18 or more; and 8 more where
    there are negative zeros. It depends on the numbers, not on how many replies there were. Input
    tensors are never changed and never kept. Not thread-safe.
    """

    __slots__ = ("_blocks", "_names", "_scratch", "_specs", "_weight")

    def __init__(self, like: Iterable[TensorSpec], names: Sequence[str] = ()) -> None:
        """Start with zero weight, for tensors of these shapes and dtypes (see ``specs_of``).

        ``names`` of the tensors, if any, are for errors alone.
        """
        self._names = tuple(names)
        self._specs = tuple(map(averaged, like))
        self._weight = 0
        self._scratch = Scratch()
        self._blocks = empty_sums([s.size for s in self._specs], [s.dtype for s in self._specs])

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The shapes and dtypes that every contribution must have."""
        return self._specs

    @property
    def weight(self) -> int:
        """The total weight so far."""
        return self._weight

    def add(self, tensors: Sequence[NDArray[Any]], weight: int) -> None:
        """Add ``weight`` times ``tensors``, and the weight itself.

        An ``add`` that raises leaves the accumulator as it was.

        Raises:
            InconsistentTensors: count, shapes or dtypes are not those of ``specs``.
            NonFiniteValues: NaN or infinity.
            AggregationError: the weight is negative or not an integer.
        """
        count = checked_weight(weight)
        check_tensors(tensors, self._specs, self._names)
        done = 0
        try:
            for index, tensor in enumerate(tensors):
                self._add_flat(index, 0, np.ravel(tensor), count)
                done += 1
        except NonFiniteValues:
            for index, tensor in enumerate(tensors[:done]):
                self._add_flat(index, 0, np.ravel(tensor), -count)
            raise
        self._weight += count

    def add_block(self, index: int, offset: int, values: NDArray[Any], weight: int) -> None:
        """Add ``weight`` times ``values`` to tensor ``index``, without counting the weight.

        ``values`` is 1-d, of the tensor's dtype, and begins at the flat (C order) position
        ``offset``. For contributions that arrive in pieces: add every element once, with the same
        weight, then call ``add_weight`` once. Raises as ``add`` does, having changed nothing.
        """
        self._add_flat(index, offset, values, checked_weight(weight))

    def take_back_block(self, index: int, offset: int, values: NDArray[Any], weight: int) -> None:
        """Undo ``add_block`` with the same arguments exactly, for a reply that breaks off."""
        self._add_flat(index, offset, values, -checked_weight(weight))

    def add_weight(self, weight: int) -> None:
        """Count the weight of a contribution once all of it was added with ``add_block``."""
        self._weight += checked_weight(weight)

    def merge(self, other: MeanAccumulator) -> None:
        """Add everything that ``other`` has accumulated; ``other`` is not changed.

        Raises:
            InconsistentTensors: ``other`` is for other shapes or dtypes.
        """
        check_specs(other._specs, self._specs, self._names)
        for mine, theirs in zip(self._blocks, other._blocks, strict=True):
            for block, addend in zip(mine, theirs, strict=True):
                block.merge(addend)
        self._weight += other._weight

    def finish(self) -> list[NDArray[Any]]:
        """Return the mean of all that was added, in new arrays. More may be added afterwards.

        Raises:
            ZeroWeight: the total weight is zero.
        """
        return list(self.means())

    def means(self) -> Iterator[NDArray[Any]]:
        """Yield what ``finish`` returns one tensor at a time, to save memory.

        Add nothing while iterating.
        """
        if self._weight == 0:
            raise ZeroWeight("nothing to average: the total weight is zero")
        for spec, blocks in zip(self._specs, self._blocks, strict=True):
            yield self._mean(spec, blocks)

    def to_pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the exact state, as read by ``from_bytes``, in pieces of at most 256 KiB.

        For writing to a file or a socket without a second copy in memory. Use each piece before
        taking the next, and add nothing meanwhile.
        """
        return dump_sums(self._specs, self._weight, self._blocks)

    def to_bytes(self) -> bytes:
        """Return the exact state, versioned and with a checksum, as read by ``from_bytes``."""
        return b"".join(self.to_pieces())

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> MeanAccumulator:
        """Restore the accumulator that ``to_bytes`` stored; ``data`` is copied.

        Raises:
            StoredDataError: the bytes are damaged, truncated or of another version.
        """
        specs, weight, blocks = load_sums(data)
        stored = cls(())
        stored._specs, stored._weight, stored._blocks = specs, weight, blocks
        return stored

    def _mean(self, spec: TensorSpec, blocks: list[BlockSum]) -> NDArray[Any]:
        mean = np.empty(spec.size, dtype=spec.dtype)
        for number, block in enumerate(blocks):
            start = number * BLOCK
            write_means(block, self._weight, mean[start : start + block.size])
        return mean.reshape(spec.shape)

    def _add_flat(self, index: int, offset: int, values: NDArray[Any], weight: int) -> None:
        """Add a flat stretch of a tensor with a weight of either sign, all of it or nothing."""
        self._check_stretch(index, offset, values)
        done = 0
        try:
            for start, stop, block, place in _cuts(self._blocks[index], offset, values.size):
                for piece in pieces_of(values[start:stop], self._scratch):
                    if isinstance(piece, MinusZeros):
                        block.add_minus_zeros(place, piece, weight)
                    else:
                        block.add(place, piece, weight, self._scratch)
                done = stop  # a block's pieces are checked before the first of them is added
        except NonFiniteValues:
            if done:
                self._add_flat(index, offset, values[:done], -weight)
            called = tensor_called(index, self._names)
            raise NonFiniteValues(f"{called} has NaN or infinity") from None

    def _check_stretch(self, index: int, offset: int, values: NDArray[Any]) -> None:
        if not 0 <= index < len(self._specs):
            raise InconsistentTensors(f"there is no tensor {index} of {len(self._specs)}")
        spec = self._specs[index]
        got = TensorSpec.of(values)
        if values.ndim != 1 or got.dtype != spec.dtype:
            raise InconsistentTensors(f"a 1-d block of tensor {index}, {spec}, cannot be {got}")
        if not 0 <= offset <= spec.size - values.size:
            raise InconsistentTensors(
                f"elements {offset} to {offset + values.size} do not lie in tensor {index}, {spec}"
            )


def _cuts(
    blocks: list[BlockSum], offset: int, size: int
) -> Iterator[tuple[int, int, BlockSum, int]]:
    """Cut a stretch at block borders: yield start and stop in it, the block, the place there."""
    start = 0
    while start < size:
        number, place = divmod(offset + start, BLOCK)
        stop = min(size, start + BLOCK - place)
        yield start, stop, blocks[number], place
        start = stop
