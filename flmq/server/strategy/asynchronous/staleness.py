"""How much an update weighs by its staleness: Xie et al., 2019, arXiv:1903.03934, section 5.2.

Staleness is the number of steps that the model made while the client trained: 0 if it made none.
Every function here gives 1 for 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["KINDS", "Staleness", "constant", "hinge", "named", "polynomial"]

Staleness = Callable[[int], float]
"""Returns the weight of an update, above 0, by its staleness."""


def constant() -> Staleness:
    """``s(t) = 1``."""
    return lambda staleness: 1.0


def polynomial(a: float = 0.5) -> Staleness:
    """``s(t) = (1 + t)^-a``; FedBuff's ``1 / sqrt(1 + t)`` for a = 1/2."""
    if a == 0.5:
        return lambda staleness: 1 / math.sqrt(1 + staleness)  # rounded alike on every machine
    return lambda staleness: float((1 + staleness) ** -a)


def hinge(a: float = 10.0, b: float = 4.0) -> Staleness:
    """``s(t) = 1`` up to ``b``, and ``1 / (a (t - b) + 1)`` beyond."""
    return lambda staleness: 1.0 if staleness <= b else 1 / (a * (staleness - b) + 1)


KINDS = ("constant", "polynomial", "hinge")


def named(kind: str, a: float | None, b: float | None) -> Staleness:
    """Return one of `KINDS`, with the paper's ``a`` and ``b`` where they are None."""
    match kind:
        case "constant":
            return constant()
        case "polynomial":
            return polynomial(*([] if a is None else [a]))
    return hinge(10.0 if a is None else a, 4.0 if b is None else b)
