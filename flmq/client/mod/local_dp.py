"""Local differential privacy: a client adds the noise itself, and trusts no server."""

from __future__ import annotations

import math
from typing import Any

from flmq.client.mod.modded import CallNext
from flmq.client.mod.private_update import private_reply
from flmq.common.errors import UsageError
from flmq.common.noise import new_secret
from flmq.common.typing import Code, FitIns

__all__ = ["InvalidModOption", "LocalDpMod"]


class InvalidModOption(UsageError, ValueError):
    """An option of a mod is out of its range."""

    def __init__(self, name: str, value: object, give: str) -> None:
        """Name the option, its value, and what to give."""
        super().__init__(f"{name} is {value!r:.70}: give {give}")


class LocalDpMod:
    """Clip the update of each training, and add noise before it leaves the client.

    The noise has the standard deviation ``sensitivity * sqrt(2 ln(1.25 / delta)) / epsilon``: one
    reply is (epsilon, delta)-private if epsilon is at most 1 (Dwork & Roth, 2014, Theorem A.1) and
    ``sensitivity`` at least ``2 * clipping_norm``, by which two updates may differ. What several
    rounds spend adds up.
    """

    def __init__(
        self,
        clipping_norm: float,
        sensitivity: float,
        epsilon: float,
        delta: float,
        *,
        noise_seed: int | None = None,
    ) -> None:
        """Clip to ``clipping_norm``.

        ``noise_seed`` is a secret of this client's, for the same noise when a task is done again by
        another process; None for one from the operating system.

        Raises:
            InvalidModOption: an argument is out of its range.
        """
        _check("clipping_norm", clipping_norm, 0 < clipping_norm < math.inf, "a number above 0")
        _check("sensitivity", sensitivity, 0 <= sensitivity < math.inf, "a number of 0 or more")
        _check("epsilon", epsilon, 0 < epsilon < math.inf, "a number above 0")
        _check("delta", delta, 0 < delta < 1, "a number above 0 and below 1")
        self.clipping_norm = clipping_norm
        self.sensitivity = sensitivity
        self.epsilon = epsilon
        self.delta = delta
        self._secret = new_secret(noise_seed)

    @property
    def stddev(self) -> float:
        """The standard deviation of the noise on each number."""
        return self.sensitivity * math.sqrt(2 * math.log(1.25 / self.delta)) / self.epsilon

    def __call__(self, ins: Any, call_next: CallNext) -> Any:
        """Train, clip, add noise.

        Raises:
            AggregationError: the client returned another kind of model, or NaN.
        """
        res = call_next(ins)
        if not isinstance(ins, FitIns) or res.status.code is not Code.OK:
            return res
        made, _ = private_reply(ins, res, self.clipping_norm, self.stddev, self._secret)
        return made


def _check(name: str, value: object, within: bool, give: str) -> None:
    if isinstance(value, bool) or not within:
        raise InvalidModOption(name, value, give)
