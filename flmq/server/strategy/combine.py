"""The first step of a strategy: combine a round's replies, in whatever order they arrive.

A `Combine` takes replies one at a time as they arrive, can merge what another one was given (a
regional aggregator's, for example), and finishes with `Combined`, from which the strategy's
``update`` makes the new model. `WeightedMean` adds replies up and keeps none of them. `AllReplies`
leaves them on disk and reads them in blocks, for medians, trimmed means, distances between replies.
Both give the same bits for every order of replies and every tree of merges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, Self, overload

from flmq.aggregation import MeanAccumulator, specs_of
from flmq.common.errors import (
    InconsistentTensors,
    MalformedMessage,
    NonFiniteValues,
    StoredDataError,
    UsageError,
    ZeroWeight,
)
from flmq.common.parameter import (
    TensorSpec,
    bytes_to_ndarray,
    ndarray_to_bytes,
    parameters_to_ndarrays,
)
from flmq.common.tensor_names import tensor_called
from flmq.common.typing import FitRes, NDArray, NDArrays, Parameters
from flmq.server.strategy.blockwise import Replies
from flmq.wire import FileParameters, kept_parameters

__all__ = ["AllReplies", "Combine", "Combined", "NotCombined", "Rule", "WeightedMean"]


class NotCombined(UsageError):
    """Arrays are requested of replies that were kept without being combined."""

    def __init__(self) -> None:
        """Say what to use instead."""
        super().__init__(
            "these replies were kept and not combined: look at combined.replies, or give "
            "AllReplies a rule"
        )


Rule = Callable[[Replies], Iterable[NDArray]]
"""Maps all replies of a round to one array for each tensor of the model."""


class Combined:
    """The combination of a round's replies: one array for each tensor of the model.

    Iterating yields the arrays one at a time, computed on demand, so that they need not all be in
    memory at once; it may be repeated.
    """

    def __init__(
        self,
        num_replies: int,
        num_examples: int,
        tensors: Callable[[], Iterable[NDArray]],
        replies: Replies | None = None,
    ) -> None:
        """Represent the arrays that ``tensors()`` returns."""
        self.num_replies = num_replies
        self.num_examples = num_examples
        """Sum over the replies."""
        self.replies = replies
        """The replies themselves, if kept; None if they were added up as they came."""
        self._tensors = tensors

    def __iter__(self) -> Iterator[NDArray]:
        """Yield each tensor's array in turn.

        Raises:
            AggregationError: the replies have no combination.
        """
        return iter(self._tensors())

    def ndarrays(self) -> NDArrays:
        """Return all arrays, in memory."""
        return list(self)

    def parameters(self) -> Parameters:
        """Return the arrays as a model; only one array at a time is in memory besides it.

        A large model (128 MiB) is itself not in memory, but in a file that goes with it.
        """
        return kept_parameters(ndarray_to_bytes(tensor) for tensor in self)


class Combine(Protocol):
    """Combine a round's accepted replies; called by one thread at a time.

    Laws, on the bits of the result of `finish`: the order of `add` does not matter, and merging
    equals adding what the other was given.
    """

    def add(self, client_id: str, res: FitRes) -> None:
        """Add one reply. A late one of an earlier round is a `LateFitRes`.

        Raises:
            AggregationError: it does not match those before; nothing changed, and the round fails.
        """

    def merge(self, other: Self) -> None:
        """Add everything that ``other`` was given; ``other`` is not changed.

        Raises:
            AggregationError: it does not match.
        """

    def finish(self) -> Combined:
        """Return the combination of the replies, and release them.

        Raises:
            AggregationError: there is none, for instance because there are no replies.
        """


class WeightedMean:
    """The exact mean of replies, weighted by their examples and rounded once.

    Memory is that of one `MeanAccumulator`, whatever the number of replies. A subclass that
    overrides `contribution` averages something else than what came, for instance clipped updates.
    """

    def __init__(self) -> None:
        """Start empty; the first reply determines the shapes and dtypes of the others."""
        self._sum: MeanAccumulator | None = None
        self._replies = 0
        self._examples = 0

    def contribution(self, client_id: str, res: FitRes) -> tuple[NDArrays, int]:
        """Return what to average of a reply, and its weight: an integer of 0 or more.

        By default its parameters, as read-only views, and its ``num_examples``.
        """
        return parameters_to_ndarrays(res.parameters, copy=False), res.num_examples

    def add(self, client_id: str, res: FitRes) -> None:
        """Add one reply.

        Raises:
            AggregationError: it does not match those before; names it.
        """
        tensors: Sequence[NDArray]
        own = type(self).contribution is not WeightedMean.contribution
        if not own and isinstance(res.parameters, FileParameters) and res.parameters.untouched:
            tensors, weight = _Mapped(res.parameters), res.num_examples
        else:
            tensors, weight = self.contribution(client_id, res)
        try:
            total = self._sum
            if total is None:
                names = res.parameters.names
                total = MeanAccumulator(specs_of(tensors, names), names)
            total.add(tensors, weight)
        except (InconsistentTensors, NonFiniteValues) as error:
            raise type(error)(f"the reply of {client_id}: {error}") from error
        self._sum = total
        self._replies += 1
        self._examples += res.num_examples

    def merge(self, other: WeightedMean) -> None:
        """Add everything that ``other`` was given.

        Raises:
            InconsistentTensors: it does not match.
        """
        if other._sum is not None:
            total = MeanAccumulator(other._sum.specs) if self._sum is None else self._sum
            total.merge(other._sum)
            self._sum = total
        self._replies += other._replies
        self._examples += other._examples

    @property
    def replies(self) -> int:
        """The number of replies that were added."""
        return self._replies

    @property
    def examples(self) -> int:
        """The sum of their examples."""
        return self._examples

    def to_pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the exact sum as bytes, none if nothing was added; see `restored`.

        Use each piece before taking the next, and add nothing meanwhile.
        """
        return iter(()) if self._sum is None else self._sum.to_pieces()

    @classmethod
    def restored(
        cls, data: bytes | bytearray | memoryview, *, replies: int, examples: int
    ) -> WeightedMean:
        """Return the mean whose `to_pieces` were ``data``, of so many replies and examples.

        Raises:
            StoredDataError: the bytes are damaged, or their weight is not that of the examples.
        """
        mean = cls()
        mean._sum = MeanAccumulator.from_bytes(data) if len(data) else None
        mean._replies, mean._examples = replies, examples
        weight = 0 if mean._sum is None else mean._sum.weight
        if weight != examples or (mean._sum is None) is not (replies == 0):
            raise StoredDataError(
                f"a stored sum of weight {weight} is not that of {replies} replies with "
                f"{examples} examples; add up the replies again"
            )
        return mean

    @property
    def specs(self) -> tuple[TensorSpec, ...] | None:
        """The shapes and dtypes of what was added; None if nothing was."""
        return None if self._sum is None else self._sum.specs

    def finish(self) -> Combined:
        """Return the mean.

        Raises:
            ZeroWeight: nothing was added, or nothing with a weight.
        """
        total, replies, examples = self._sum, self._replies, self._examples
        self._sum, self._replies, self._examples = None, 0, 0
        if total is None:
            raise ZeroWeight("nothing to average: there are no results")
        return Combined(replies, examples, total.means)


class _Mapped(Sequence[NDArray]):
    """A reply's arrays, each mapped from its file when it is its turn, and let go of with it."""

    def __init__(self, parameters: FileParameters) -> None:
        self._parameters = parameters

    def __len__(self) -> int:
        return len(self._parameters.ref.lengths)

    @overload
    def __getitem__(self, index: int) -> NDArray: ...

    @overload
    def __getitem__(self, index: slice) -> NDArrays: ...

    def __getitem__(self, index: int | slice) -> NDArray | NDArrays:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        try:
            return bytes_to_ndarray(self._parameters.tensor(index), copy=False)
        except MalformedMessage as error:
            called = tensor_called(index, self._parameters.names)
            raise MalformedMessage(f"{called}: {error}") from error


class AllReplies:
    """Keep replies where they are, usually on disk, and combine them when all have come."""

    def __init__(self, rule: Rule | None = None, *, reals: bool = False) -> None:
        """Combine by ``rule``, for example one from `coordinate_wise`.

        None passes the replies on uncombined, in `Combined.replies`. ``reals``: the rule is for
        tensors that have a mean, so that a model of others is refused before anybody trains.
        """
        self._rule = rule
        self.reals = reals
        self._kept: list[tuple[str, FitRes]] = []

    def add(self, client_id: str, res: FitRes) -> None:
        """Keep one reply."""
        self._kept.append((client_id, res))

    def merge(self, other: AllReplies) -> None:
        """Keep all that ``other`` keeps."""
        self._kept.extend(other._kept)

    def finish(self) -> Combined:
        """Return the rule's result for all replies.

        Raises:
            ZeroWeight: there are no replies.
        """
        kept, self._kept = self._kept, []
        if not kept:
            raise ZeroWeight("nothing to combine: there are no results")
        replies, rule = Replies(kept), self._rule or _passed_on
        examples = sum(res.num_examples for _, res in replies)
        return Combined(len(replies), examples, lambda: rule(replies), replies)


def _passed_on(replies: Replies) -> Iterable[NDArray]:
    raise NotCombined
