"""The buffer of one step: updates added up as they are taken, and what the step makes of them.

The server fills it from its stream of asks, a replay from the record: the same updates give the
same bits, in whichever order they were taken.
"""

from __future__ import annotations

from flmq.common.errors import RunError, StoredDataError
from flmq.common.parameter import without_parameters
from flmq.common.typing import FitRes, Metrics, Parameters
from flmq.observe.events import BufferedUpdate
from flmq.round import PhaseKey
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.request import NotAddedUp
from flmq.server.strategy import validation as returned
from flmq.server.strategy.asynchronous import Asynchronous
from flmq.server.strategy.asynchronous.update_sum import UpdateRes
from flmq.server.strategy.streaming import StreamedResults, says_it_streams

__all__ = ["Buffer"]

_Result = tuple[ClientProxy, FitRes]


class Buffer:
    """The updates of one step, of which none is kept in memory."""

    def __init__(self, strategy: Asynchronous, number: int, model: Parameters) -> None:
        """Fill the buffer that leads from ``model`` to step ``number``."""
        self.number = number
        self.updates: list[BufferedUpdate] = []
        """What was taken, in that order, too stale updates included."""
        self.failures: list[_Result | BaseException] = []
        self._strategy = strategy
        self._combine = strategy.combine(number, model) if says_it_streams(strategy) else None
        self._results: list[tuple[tuple[str, int, int], _Result]] = []

    @property
    def is_full(self) -> bool:
        """Whether there are as many updates as make a step."""
        return len(self._results) >= self._strategy.buffer_size

    def staleness(self, key: PhaseKey) -> int:
        """Return how many steps the model has made since this ask."""
        return self.number - key.server_round

    def drop(self, key: PhaseKey, client_id: str) -> None:
        """Note an update that is too stale to count."""
        stale = self.staleness(key)
        self.updates.append(BufferedUpdate(client_id, key.server_round, key.call, stale, 0.0))

    def add(
        self, key: PhaseKey, client: ClientProxy, res: FitRes, trained_from: Parameters
    ) -> None:
        """Add a client's reply to the ask ``key``, in which it was sent ``trained_from``.

        Raises:
            AggregationError: it cannot be added up; nothing changed.
            NotAddedUp: the server's own disk or memory is to blame.
        """
        stale = self.staleness(key)
        weight = self._strategy.weight(stale)
        update: FitRes = UpdateRes.of(res, trained_from, stale)
        if self._combine is not None:
            try:
                self._combine.add(client.cid, update)
            except (RunError, StoredDataError):
                raise
            except (OSError, MemoryError) as error:
                raise NotAddedUp(client.cid, error) from error
            update = without_parameters(res)
        place = (client.cid, key.server_round, key.call)
        self._results.append((place, (client, update)))
        self.updates.append(
            BufferedUpdate(client.cid, key.server_round, key.call, stale, float(weight))
        )

    def aggregate(self) -> tuple[Parameters | None, Metrics]:
        """Return the strategy's next model, or None where it stays, and the step's metrics.

        Raises:
            AggregationError: the step fails; the model stays.
        """
        results = [result for _, result in sorted(self._results, key=lambda pair: pair[0])]
        if self._combine is not None:
            results = StreamedResults(results, self._combine)
        aggregated = self._strategy.aggregate_fit(self.number, results, self.failures)
        method = returned.method_name(self._strategy, "aggregate_fit")
        model, metrics = returned.checked_model(method, aggregated)
        return model, {**metrics, **self._measured()}  # no client says how stale the others are

    def _measured(self) -> Metrics:
        counted = [each.staleness for each in self.updates if each.weight]
        return {
            "staleness_mean": sum(counted) / max(1, len(counted)),
            "staleness_max": max(counted, default=0),
        }
