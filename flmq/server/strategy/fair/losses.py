"""Losses by which replies weigh: a client may send anything, so they are looked at first."""

from __future__ import annotations

import math

from flmq.common.errors import AggregationError

__all__ = ["NoLoss", "is_loss", "power", "usable"]

_SMALL = 1e-10
"""Added to a loss before it is raised to a power: as in Flower, and in the paper's own code."""


class NoLoss(AggregationError):
    """There is no loss by which to weigh replies."""


def is_loss(value: object) -> bool:
    """Return whether ``value`` is a finite number of 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def usable(value: object, whose: str) -> float:
    """Return the loss ``value`` that comes from ``whose`` evaluation.

    Raises:
        NoLoss: it is none.
    """
    if isinstance(value, int | float) and is_loss(value):
        return float(value)
    raise NoLoss(
        f"the loss of {whose} is {value!r}: QFedAvg weighs replies by losses, finite and not "
        "negative: give evaluate_fn, or loss_metric and clients that return it"
    )


def power(loss: float, exponent: float) -> float:
    """Return ``loss ** exponent``; infinity if it is too large for a float."""
    try:
        return float((loss + _SMALL) ** exponent)
    except OverflowError:
        return math.inf
