"""Stop a run early: when a measure no longer improves, reaches a target, or a function says so.

Whether to stop is a function of the run's `History` alone, asked after each round. The history is
in the journal, so a resumed server decides as an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flmq.common.errors import InvalidReturnValue, UsageError
from flmq.common.typing import Scalar
from flmq.server.history import History

__all__ = [
    "EarlyStopping",
    "InvalidEarlyStopping",
    "NothingToMonitor",
    "StopRule",
    "never",
    "stop_rule",
]

StopRule = Callable[[History], "str | bool | None"]
"""Returns whether to stop, or why; called after each round."""

_SOURCES = ("centralized", "distributed", "fit")
"""Who measured, the leading first."""


class InvalidEarlyStopping(UsageError, ValueError):
    """An option of early stopping is out of its range."""


class NothingToMonitor(UsageError):
    """The run does not measure what early stopping looks at."""

    def __init__(self, monitor: str, measured: Iterable[str]) -> None:
        """Name it, and what is measured."""
        super().__init__(
            f"early stopping looks at {monitor!r}, and this run measures "
            f"{', '.join(sorted(measured))}: name one of these (monitor=..., --monitor)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Stop when a measure has not improved for ``patience`` rounds, or has reached ``target``.

    Give it to ``ServerConfig(early_stopping=...)``.

    Raises:
        InvalidEarlyStopping: an option is out of its range, or neither of the two is given.
    """

    monitor: str = "loss"
    """``"loss"``, or the name of a metric."""
    patience: int | None = None
    """Rounds without improvement after which the run stops. Only rounds that measure it count."""
    min_delta: float = 0.0
    """An improvement is one by more than this, over the best so far."""
    target: float | None = None
    """The run stops once the measure is this good."""
    mode: str | None = None
    """``"min"``: less is better; ``"max"``: more is. None: less of a loss, more of a metric."""
    source: str | None = None
    """Who measured: ``"centralized"`` (the server), ``"distributed"`` (clients' evaluation) or
    ``"fit"`` (clients' training), as in `History`. None: the first of these that measured it."""

    def __post_init__(self) -> None:
        """Check the options."""
        if not isinstance(self.monitor, str) or not self.monitor:
            raise InvalidEarlyStopping(
                f'monitor is {self.monitor!r}: give "loss" or the name of a metric'
            )
        if self.patience is None and self.target is None:
            raise InvalidEarlyStopping(
                "neither patience nor target is given, so nothing would stop the run: give one"
            )
        if self.patience is not None:
            whole = isinstance(self.patience, int) and not isinstance(self.patience, bool)
            if not whole or self.patience < 1:
                raise InvalidEarlyStopping(f"patience is {self.patience!r}: give 1 or more rounds")
        if _number(self.min_delta) is None or self.min_delta < 0 or math.isinf(self.min_delta):
            raise InvalidEarlyStopping(f"min_delta is {self.min_delta!r}: give a number from 0 up")
        if self.target is not None and _number(self.target) is None:
            raise InvalidEarlyStopping(f"target is {self.target!r}: give a number")
        if self.mode not in (None, "min", "max"):
            raise InvalidEarlyStopping(f'mode is {self.mode!r}: give "min" or "max"')
        if self.source not in (None, *_SOURCES):
            raise InvalidEarlyStopping(f"source is {self.source!r}: give one of {_SOURCES}")
        if self.source == "fit" and self.monitor == "loss":
            raise InvalidEarlyStopping(
                'training has no loss of its own: give source="distributed", or the name of a '
                "metric that clients return from fit"
            )

    def __call__(self, history: History) -> str | None:
        """Return why to stop after the last round of ``history``; None to go on.

        Raises:
            NothingToMonitor: the run measures something, but not this.
        """
        best, best_round, waited = math.nan, 0, 0
        for server_round, measured in self._series(history):
            value = _number(measured)
            if value is not None and self._reaches_target(value):
                return (
                    f"{self.monitor} is {value:g} after round {server_round}, and was to reach "
                    f"{self.target:g}"
                )
            if value is not None and (math.isnan(best) or self._gain(value, best) > self.min_delta):
                best, best_round, waited = value, server_round, 0
            else:
                waited += 1
        if self.patience is None or waited < self.patience:
            return None
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        rounds = "1 round" if waited == 1 else f"{waited} rounds"
        if math.isnan(best):
            return f"{self.monitor} was no number for {rounds}"
        return (
            f"{self.monitor} has not improved{by} for {rounds}: the best was {best:g}, after round "
            f"{best_round}"
        )

    @property
    def _less_is_better(self) -> bool:
        return self.mode == "min" if self.mode else self.monitor == "loss"

    def _gain(self, value: float, best: float) -> float:
        return best - value if self._less_is_better else value - best

    def _reaches_target(self, value: float) -> bool:
        return self.target is not None and self._gain(value, self.target) >= 0

    def _series(self, history: History) -> list[tuple[int, Any]]:
        sources = _SOURCES if self.source is None else (self.source,)
        for source in sources:
            if series := _measured(history, source).get(self.monitor):
                return series
        # A round may evaluate nothing, or train alone: then it may still come.
        looked_at = sources[:2]
        known = [name for source in looked_at for name in _measured(history, source)]
        if known:
            raise NothingToMonitor(self.monitor, known)
        return []


def never(history: History) -> str:
    """Go on until all rounds are done."""
    return ""


def stop_rule(rule: StopRule | None) -> Callable[[History], str]:
    """Return ``rule`` as a function that returns why to stop, or "" to go on.

    It raises `InvalidReturnValue` where the rule returns something else.
    """
    if rule is None:
        return never

    def why(history: History) -> str:
        said = rule(history)
        if isinstance(said, str):
            return said
        if said is None or isinstance(said, bool):
            return f"{_name(rule)} said so" if said else ""
        raise InvalidReturnValue(
            f"{_name(rule)}, which says when to stop early, returned a {type(said).__name__}: "
            "return a reason, or True to stop; None or False to go on"
        )

    return why


def _name(rule: StopRule) -> str:
    return str(getattr(rule, "__name__", type(rule).__name__))


def _measured(history: History, source: str) -> dict[str, list[tuple[int, Any]]]:
    """Return the series of a source by name, with its loss as "loss"."""
    if source == "fit":
        return dict(history.metrics_distributed_fit)
    losses, metrics = history.losses_distributed, history.metrics_distributed
    if source == "centralized":
        losses, metrics = history.losses_centralized, history.metrics_centralized
    return {**metrics, **({"loss": losses} if losses else {})}


def _number(value: Scalar | None) -> float | None:
    """Return ``value`` as a number; None if it is none, or NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)
