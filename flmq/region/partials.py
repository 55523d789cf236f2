"""Open a partial sum of an aggregator below: all of it fits its order, or none of it counts."""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest

from flmq.common.parameter import TensorSpec
from flmq.common.typing import Parameters
from flmq.server.strategy.combine import WeightedMean
from flmq.server.strategy.partial_sum import entries_of, mean_of
from flmq.wire import AggregateOrder, PartialEntry, PartialSum

__all__ = ["identity_problem", "open_partial"]


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
    asked = {ask.task_id: ask.client_id for ask in order.asks}
    entries = entries_of(parameters, asked)
    return mean_of(parameters, entries, specs), entries
