"""Check the weight of a contribution: an integer of zero or more."""

from __future__ import annotations

from operator import index

from flmq.common.errors import AggregationError

__all__ = ["checked_weight"]


def checked_weight(weight: int) -> int:
    """Return ``weight`` as a Python int.

    Raises:
        AggregationError: it is negative or not an integer (floats are refused, even whole ones).
    """
    try:
        whole = index(weight)
    except TypeError:
        raise AggregationError(
            f"a weight must be an integer such as num_examples, not {weight!r} "
            f"({type(weight).__name__})"
        ) from None
    if whole < 0:
        raise AggregationError(f"a weight must be zero or more, not {whole}")
    return whole
