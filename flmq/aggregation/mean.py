"""The exact weighted mean of lists of tensors: the same bits for every order and every tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.aggregation.limbs import BlockSum, empty_sums
from flmq.aggregation.pieces import BLOCK, Scratch, pieces_of
from flmq.aggregation.quotients import write_means
from flmq.aggregation.stored import dump_sums, load_sums
from flmq.aggregation.tensors import TensorSpec, check_specs, check_tensors, specs_of
from flmq.aggregation.weights import checked_weight
from flmq.common.errors import InconsistentTensors, NonFiniteValues, ZeroWeight

__all__ = ["MeanAccumulator", "weighted_mean"]


def weighted_mean(results: Iterable[tuple[Sequence[NDArray[Any]], int]]) -> list[NDArray[Any]]:
    """``sum(weight * tensors) / sum(weight)``, exact, rounded once to each tensor's own dtype.

    ``results`` are pairs of tensors and weight; they are taken one at a time, and the memory needed
    does not grow with their number. The first says what the others must look like. The rules are
    those of ``MeanAccumulator``.

    Raises ``ZeroWeight`` when there are no results or all weights are zero, ``InconsistentTensors``
    when counts, shapes or dtypes differ, ``NonFiniteValues`` for NaN and infinity (both name the
    result and the tensor by their position), ``AggregationError`` for a weight that is negative or
    not an integer.
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
    """An exact weighted sum of lists of tensors, from which ``finish`` makes the mean.

    Laws, on the bits of ``finish()``:

    - the order of ``add`` and ``add_block`` does not matter, nor how a tensor is cut into blocks;
    - ``merge`` is associative and commutative, and merging equals adding what the other was given:
      every tree of partial sums ends in the same bits;
    - ``take_back_block`` undoes ``add_block``; an ``add`` that raises has changed nothing;
    - ``from_bytes(a.to_bytes())`` goes on as ``a`` would.

    They hold because sums are exact, whatever the magnitudes, and the mean is a function of the
    exact sum and the total weight alone. It is the number of the tensor's dtype **nearest** to the
    true mean, half to even, subnormal numbers included:

    - float16, float32, float64: correctly rounded; never overflows, as a mean lies among its
      values. Zero is +0.0 (-0.0 counts as zero).
    - integers, of all widths and signs: the nearest integer, a half to the even one.
    - bool: as 0 and 1, so the weighted majority, and False when it is a tie.

    Memory: 8 bytes an element as a rule; 16 for float64, where the total weight passes a million,
    or where many numbers are smaller than the largest by 2**18 and more. It depends on the range of
    the numbers, not on how many replies there were. Tensors that are given are never changed and
    never kept. An accumulator is for one thread at a time.
    """

    __slots__ = ("_blocks", "_scratch", "_specs", "_weight")

    def __init__(self, like: Iterable[TensorSpec]) -> None:
        """Begin with no weight, for tensors of these shapes and dtypes (see ``specs_of``)."""
        self._specs = tuple(like)
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
        """Add ``weight`` times ``tensors``, and the weight.

        Raises ``InconsistentTensors``, ``NonFiniteValues`` or, for a weight that is negative or
        not an integer, ``AggregationError``; the accumulator is then as it was before.
        """
        count = checked_weight(weight)
        check_tensors(tensors, self._specs)
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
        """Add ``weight`` times ``values`` to tensor ``index``, but not the weight itself.

        ``values``: 1-d, of the tensor's dtype, its elements from the flat (C order) position
        ``offset`` on. For contributions that come in pieces: give every element once, with the same
        weight, then call ``add_weight`` once. Raises as ``add`` does, having changed nothing.
        """
        self._add_flat(index, offset, values, checked_weight(weight))

    def take_back_block(self, index: int, offset: int, values: NDArray[Any], weight: int) -> None:
        """Undo ``add_block`` with the same arguments, exactly: for a reply that breaks off."""
        self._add_flat(index, offset, values, -checked_weight(weight))

    def add_weight(self, weight: int) -> None:
        """Count the weight of a contribution that came by ``add_block``, once it is complete."""
        self._weight += checked_weight(weight)

    def merge(self, other: MeanAccumulator) -> None:
        """Add all that ``other`` has been given; ``other`` stays as it is.

        Raises ``InconsistentTensors`` when it is for other tensors.
        """
        check_specs(other._specs, self._specs)
        for mine, theirs in zip(self._blocks, other._blocks, strict=True):
            for block, addend in zip(mine, theirs, strict=True):
                block.merge(addend)
        self._weight += other._weight

    def finish(self) -> list[NDArray[Any]]:
        """The mean of all that was added, in new arrays. The accumulator can go on afterwards.

        Raises ``ZeroWeight`` when the total weight is zero.
        """
        return list(self.means())

    def means(self) -> Iterator[NDArray[Any]]:
        """As ``finish``, a tensor at a time, for who does not want all of them in memory.

        Add nothing meanwhile.
        """
        if self._weight == 0:
            raise ZeroWeight("nothing to average: the total weight is zero")
        for spec, blocks in zip(self._specs, self._blocks, strict=True):
            yield self._mean(spec, blocks)

    def to_pieces(self) -> Iterator[bytes | memoryview]:
        """The exact state, as ``from_bytes`` reads it, in pieces of at most 256 KiB.

        For a file or a wire, without a second copy in memory. Use each piece before the next, and
        add nothing meanwhile.
        """
        return dump_sums(self._specs, self._weight, self._blocks)

    def to_bytes(self) -> bytes:
        """The exact state as ``from_bytes`` reads it: versioned, with a checksum."""
        return b"".join(self.to_pieces())

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> MeanAccumulator:
        """The accumulator that ``to_bytes`` stored; ``data`` is copied.

        Raises ``StoredDataError`` when the bytes are damaged, cut short, or of another version.
        """
        specs, weight, blocks = load_sums(data)
        stored = cls(())
        stored._specs, stored._weight, stored._blocks = specs, weight, blocks
        return stored

    def _mean(self, spec: TensorSpec, blocks: list[BlockSum]) -> NDArray[Any]:
        mean = np.empty(spec.size, dtype=spec.dtype.newbyteorder("="))
        for number, block in enumerate(blocks):
            start = number * BLOCK
            write_means(block, self._weight, mean[start : start + block.size])
        return mean.astype(spec.dtype, copy=False).reshape(spec.shape)

    def _add_flat(self, index: int, offset: int, values: NDArray[Any], weight: int) -> None:
        """Add a flat stretch of a tensor with a weight of either sign, all of it or nothing."""
        self._check_stretch(index, offset, values)
        done = 0
        try:
            for start, stop, block, place in _cuts(self._blocks[index], offset, values.size):
                for piece in pieces_of(values[start:stop], self._scratch):
                    block.add(place, piece, weight, self._scratch)
                done = stop  # a block's pieces are checked before the first of them is added
        except NonFiniteValues:
            if done:
                self._add_flat(index, offset, values[:done], -weight)
            raise NonFiniteValues(f"tensor {index} has NaN or infinity") from None

    def _check_stretch(self, index: int, offset: int, values: NDArray[Any]) -> None:
        if not 0 <= index < len(self._specs):
            raise InconsistentTensors(f"there is no tensor {index} of {len(self._specs)}")
        spec = self._specs[index]
        if values.ndim != 1 or values.dtype != spec.dtype:
            got = TensorSpec.of(values)
            raise InconsistentTensors(f"a 1-d block of tensor {index}, {spec}, cannot be {got}")
        if not 0 <= offset <= spec.size - values.size:
            raise InconsistentTensors(
                f"elements {offset} to {offset + values.size} do not lie in tensor {index}, {spec}"
            )


def _cuts(
    blocks: list[BlockSum], offset: int, size: int
) -> Iterator[tuple[int, int, BlockSum, int]]:
    """Where a stretch is cut at the blocks' borders: start and stop in it, block, place there."""
    start = 0
    while start < size:
        number, place = divmod(offset + start, BLOCK)
        stop = min(size, start + BLOCK - place)
        yield start, stop, blocks[number], place
        start = stop
