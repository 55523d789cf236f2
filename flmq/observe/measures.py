"""A round's measurements in the order in which they are shown: loss, metrics, those of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flmq.common.cleaning import one_line
from flmq.common.typing import Scalar
from flmq.observe.events import RunEnded

__all__ = [
    "Measured",
    "figure",
    "final_measures",
    "is_of_training",
    "measures_of",
    "number",
    "shown_name",
]

_FIT = "fit_"
_EVALUATE = "evaluate_"
_LONGEST_NAME = 40
_LONGEST_TEXT = 20


class Measured(Protocol):
    """Something with measurements: a closed round, as an event or in a record."""

    @property
    def loss(self) -> float | None:
        """The leading loss."""

    @property
    def metrics(self) -> Mapping[str, Scalar]:
        """Metrics from the same source as the loss."""

    @property
    def fit_metrics(self) -> Mapping[str, Scalar]:
        """Metrics of training."""

    @property
    def evaluate_loss(self) -> float | None:
        """The clients' loss, if the server evaluates too."""

    @property
    def evaluate_metrics(self) -> Mapping[str, Scalar]:
        """The clients' metrics, as with ``evaluate_loss``."""


def measures_of(measured: Measured) -> dict[str, Scalar]:
    """Return all measurements by the name under which they are shown.

    Those of training begin with "fit_", those of clients with "evaluate_" if the server's own have
    the plain names. "loss" and "accuracy" come first, measurements of training last.
    """
    found: dict[str, Scalar] = {}
    if measured.loss is not None:
        found["loss"] = measured.loss
    _add(found, "", measured.metrics)
    if measured.evaluate_loss is not None:
        found[f"{_EVALUATE}loss"] = measured.evaluate_loss
    _add(found, _EVALUATE, measured.evaluate_metrics)
    _add(found, _FIT, measured.fit_metrics)
    return found


def final_measures(ended: RunEnded) -> dict[str, Scalar]:
    """Return the last measurements of the run, by name."""
    found: dict[str, Scalar] = {} if ended.final_loss is None else {"loss": ended.final_loss}
    _add(found, "", ended.final_metrics)
    return found


def is_of_training(name: str) -> bool:
    """Return whether this name of `measures_of` is one of training."""
    return name.startswith(_FIT)


def number(value: Scalar | None) -> float | None:
    """Return ``value`` as a number to draw; None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def figure(value: Scalar | None) -> str:
    """Return ``value`` as text for a line or a table; "-" if it is None."""
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case int():
            return str(value) if abs(value) < 10**9 else f"{value:.3e}"
        case float():
            small = value != 0 and abs(value) < 0.001
            return f"{value:.2e}" if small or abs(value) >= 1e6 else f"{value:.3f}"
        case bytes():
            return f"{len(value)}_bytes"
    return shown_name(value, _LONGEST_TEXT)


def shown_name(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return a name or text from a peer as one safe word."""
    return one_line(text, longest).replace(" ", "_") or "_"


def _add(found: dict[str, Scalar], prefix: str, metrics: Mapping[str, Scalar]) -> None:
    for name in sorted(metrics, key=lambda name: (name != "accuracy", name)):
        found.setdefault(prefix + shown_name(name), metrics[name])
