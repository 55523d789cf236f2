"""A step of the model's tensors along a change, rounded once to their dtype."""

from __future__ import annotations

import numpy as np

from flmq.common.dtypes import first_not_finite, is_float, rounded
from flmq.common.errors import NonFiniteValues
from flmq.common.learning import working_dtype
from flmq.common.typing import NDArray

__all__ = ["checked", "moved", "towards"]


def moved(index: int, x: NDArray, change: NDArray) -> NDArray:
    """Return tensor number ``index``, ``x``, plus ``change``, in the float dtype of ``x``.

    Raises:
        NonFiniteValues: numbers became NaN or infinity.
    """
    with np.errstate(all="ignore"):  # what overflows is reported
        return checked(index, rounded(np.asarray(x + change), x.dtype))


def checked(index: int, new: NDArray) -> NDArray:
    """Return ``new``, tensor number ``index`` after a step.

    Raises:
        NonFiniteValues: numbers became NaN or infinity.
    """
    if (at := first_not_finite(new)) is not None:
        raise NonFiniteValues(
            f"tensor {index} became NaN or infinity in the server's step (first at flat position "
            f"{at}): look at what clients send, or lower the server's learning rate"
        )
    return new


def towards(index: int, x: NDArray, aim: NDArray, rate: float) -> NDArray:
    """Return ``x + rate (aim - x)``, or ``aim`` for tensors that are not trained; else as `moved`.

    ``aim`` is a mean, and a mean of counters is one; a step in its direction is not.
    """
    if not is_float(x.dtype):
        return aim
    return moved(index, x, rate * np.subtract(aim, x, dtype=working_dtype(x.dtype)))
