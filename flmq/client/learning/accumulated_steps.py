"""The number of local steps that FedNova divides an update by.

Wang et al., NeurIPS 2020, arXiv:2007.07481, section 4.1: with local gradients g_k and an optimizer
that changes the model by ``-eta sum_k a_k g_k``, it is the sum of the a_k.
"""

from __future__ import annotations

from flmq.common.errors import UsageError

__all__ = ["InvalidSteps", "accumulated_steps"]


class InvalidSteps(UsageError, ValueError):
    """Steps, momentum or shrinking are out of their ranges."""


def accumulated_steps(steps: int, *, momentum: float = 0.0, shrink: float = 0.0) -> float:
    """Return ``sum a_k`` of so many local steps: what a client returns as the metric "tau".

    Args:
        steps: the number of local steps, 1 or more: that of plain SGD.
        momentum: rho of SGD with momentum (``m = rho m + g``, without dampening), from 0 to below
            1: ``a_k = (1 - rho^(steps - k)) / (1 - rho)`` for k from 0.
        shrink: ``eta mu`` of a proximal term, or the learning rate times the weight decay, from 0
            to below 1: ``a_k = (1 - shrink)^(steps - 1 - k)``.

    Raises:
        InvalidSteps: an argument is out of its range, or both of the last two are given.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidSteps(f"steps is {steps!r}: give the number of local steps, 1 or more")
    for name, value in (("momentum", momentum), ("shrink", shrink)):
        if not 0 <= value < 1:
            raise InvalidSteps(f"{name} is {value!r}: give a number from 0 to below 1")
    if momentum and shrink:
        raise InvalidSteps("momentum and shrink are both given: their sum has no short form")
    kept = 1 - shrink
    if shrink:
        return (1 - kept**steps) / shrink
    if momentum:
        return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
    return float(steps)
