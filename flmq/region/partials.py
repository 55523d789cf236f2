"""Open a partial sum of an aggregator below: all of it fits its order, or none of it counts."""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest

from flmq.aggregation.tensors import averaged
from flmq.common.errors import MalformedMessage, PeerError, StoredDataError
from flmq.common.parameter import TensorSpec
from flmq.common.typing import FitRes, Parameters
from flmq.server.strategy.combine import WeightedMean
from flmq.wire import AggregateOrder, EntryOutcome, PartialEntry, PartialSum
from flmq.wire.entries import read_entries
from flmq.wire.failures import why_failed
from flmq.wire.regional import PARTIAL_TENSORS

__all__ = ["PartialRefused", "identity_problem", "open_partial"]


class PartialRefused(PeerError):
    """A partial sum does not fit its order."""


def identity_problem(order: AggregateOrder, partial: PartialSum) -> str | None:
    """Return why a partial sum is not an answer to this order; None if it is."""
    if not compare_digest(partial.nonce, order.nonce):
        return "does not have its order's nonce"
    for name in ("job", "run", "phase", "server_round", "site"):
        if getattr(partial, name) != getattr(order, name):
            return f"names another {name.replace('_', ' ')} than its order"
    if partial.epoch > order.epoch:
        return f"answers epoch {partial.epoch}, its order is of epoch {order.epoch}"
    return None


def open_partial(
    order: AggregateOrder, parameters: Parameters, specs: Sequence[TensorSpec]
) -> tuple[WeightedMean, list[PartialEntry]]:
    """Return the sum and the entries in a partial sum's two tensors.

    ``order`` is what it answers, with the asks that are awaited now; ``specs`` are those of the
    model (none: not compared).

    Raises:
        PartialRefused: something does not fit; says what.
    """
    if parameters.tensor_type != PARTIAL_TENSORS or len(parameters.tensors) != 2:
        raise PartialRefused(f"a partial sum of {len(parameters.tensors)} tensors: it has two")
    data, listed = parameters.tensors
    try:
        entries = read_entries(listed, most=len(order.asks))
    except MalformedMessage as error:
        raise PartialRefused(str(error)) from error
    asked = {ask.task_id: ask.client_id for ask in order.asks}
    seen: set[str] = set()
    for entry in entries:
        if entry.task_id in seen:
            raise PartialRefused(f"lists client {entry.client_id} twice")
        seen.add(entry.task_id)
        if asked.get(entry.task_id) != entry.client_id:
            raise PartialRefused(
                f"lists client {entry.client_id}, which was not asked or is settled already"
            )
    counts = [_examples(entry) for entry in entries if entry.outcome is EntryOutcome.ACCEPTED]
    try:
        mean = WeightedMean.restored(data, replies=len(counts), examples=sum(counts))
    except StoredDataError as error:
        raise PartialRefused(str(error)) from error
    if mean.specs is not None and specs and mean.specs != tuple(map(averaged, specs)):
        raise PartialRefused("is a sum of tensors of other shapes or dtypes than the model's")
    return mean, entries


def _examples(entry: PartialEntry) -> int:
    assert isinstance(entry.res, FitRes), "read_entries has seen to it"
    if why_failed(entry.res) is not None:
        raise PartialRefused(f"counts client {entry.client_id}, which failed")
    if entry.res.num_examples < 1:
        raise PartialRefused(f"counts client {entry.client_id} with no examples")
    return entry.res.num_examples
