"""The weighted mean of replies as they come, so that no reply need be kept."""

from __future__ import annotations

from collections.abc import Iterable

from flmq.aggregation import MeanAccumulator, specs_of
from flmq.common.errors import ZeroWeight
from flmq.common.parameter import ndarray_to_bytes, parameters_to_ndarrays
from flmq.common.typing import FitRes, Parameters
from flmq.server.client_proxy import ClientProxy

__all__ = ["MeanSink", "StreamedResults"]


class MeanSink:
    """Adds up replies exactly, in whatever order they come. For one thread at a time."""

    def __init__(self) -> None:
        """Begin with nothing; the first reply says what the others must look like."""
        self._sum: MeanAccumulator | None = None

    def add(self, res: FitRes) -> None:
        """Add one reply with its ``num_examples`` as weight.

        Raises:
            AggregationError: it does not fit those before; the sum is as it was.
        """
        tensors = parameters_to_ndarrays(res.parameters, copy=False)
        if self._sum is None:
            self._sum = MeanAccumulator(specs_of(tensors))
        self._sum.add(tensors, res.num_examples)

    def mean(self) -> Parameters:
        """The mean of what was added, rounded once; the sum is let go.

        Raises:
            ZeroWeight: nothing was added.
        """
        if self._sum is None:
            raise ZeroWeight("nothing to average: there are no results")
        total, self._sum = self._sum, None
        # One array at a time: beside the sum there is then one copy of the model, not two.
        return Parameters([ndarray_to_bytes(mean) for mean in total.means()], "numpy.ndarray")


class StreamedResults(list[tuple[ClientProxy, FitRes]]):
    """``results`` whose parameters are in ``sink`` already: those of each reply are empty."""

    def __init__(self, results: Iterable[tuple[ClientProxy, FitRes]], sink: MeanSink) -> None:
        """Hold the replies, and the sum of their parameters."""
        super().__init__(results)
        self.sink = sink
