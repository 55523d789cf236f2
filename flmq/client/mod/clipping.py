"""Clipping on the client, for the strategies ``DifferentialPrivacyClientSide...Clipping``.

The norm comes with each task. These should be the last mods to change parameters: put them first.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from flmq.client.mod.modded import CallNext
from flmq.client.mod.private_update import private_reply
from flmq.common.clipping import KEY_CLIPPING_NORM, KEY_NORM_BIT
from flmq.common.errors import UsageError
from flmq.common.typing import Code, Config, FitIns

__all__ = ["NoClippingNorm", "adaptiveclipping_mod", "clipping_norm", "fixedclipping_mod"]


class NoClippingNorm(UsageError):
    """A task does not say to which norm its client is to clip."""

    def __init__(self, key: str, value: object, strategy: str) -> None:
        """Name the key of the config, what is there, and the strategy that sends a norm."""
        super().__init__(
            f"config[{key!r}] is {value!r:.70}, not a number above 0 to clip to: use the strategy "
            f"{strategy} on the server"
        )


def fixedclipping_mod(ins: Any, call_next: CallNext) -> Any:
    """Clip the update of each training to the norm that the strategy sends.

    Raises:
        NoClippingNorm: it sends none.
        AggregationError: the client returned another kind of model, or NaN.
    """
    return _clipped(ins, call_next, "DifferentialPrivacyClientSideFixedClipping", None)


def adaptiveclipping_mod(ins: Any, call_next: CallNext) -> Any:
    """Clip the update of each training, and say in the metric ``norm_bit`` whether it was too long.

    Raises:
        NoClippingNorm: the strategy sends no norm.
        AggregationError: the client returned another kind of model, or NaN.
    """
    return _clipped(ins, call_next, "DifferentialPrivacyClientSideAdaptiveClipping", KEY_NORM_BIT)


def clipping_norm(config: Config, key: str, strategy: str) -> float:
    """Return the norm in a task's config; ``strategy`` is the one that sends it.

    Raises:
        NoClippingNorm: there is none.
    """
    norm = config.get(key)
    if isinstance(norm, bool) or not isinstance(norm, int | float) or not 0 < norm < math.inf:
        raise NoClippingNorm(key, norm, strategy)
    return float(norm)


def _clipped(ins: Any, call_next: CallNext, strategy: str, bit: str | None) -> Any:
    if not isinstance(ins, FitIns):
        return call_next(ins)
    norm = clipping_norm(ins.config, KEY_CLIPPING_NORM, strategy)  # before training, not after
    res = call_next(ins)
    if res.status.code is not Code.OK:
        return res
    res, was_clipped = private_reply(ins, res, norm)
    return replace(res, metrics={**res.metrics, bit: int(was_clipped)}) if bit else res
