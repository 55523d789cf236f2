"""A run's measurements: losses and metrics, by round and by who measured them."""

from __future__ import annotations

import base64
import math
import pprint
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flmq.common.errors import StoredDataError
from flmq.common.scalars import check_scalars
from flmq.common.typing import Scalar

__all__ = ["History"]

Losses = list[tuple[int, float]]
MetricSeries = dict[str, list[tuple[int, Scalar]]]

_LOSSES = {
    "losses_distributed": "loss, distributed",
    "losses_centralized": "loss, centralized",
}
_METRICS = {
    "metrics_distributed_fit": "metrics, distributed, fit",
    "metrics_distributed": "metrics, distributed, evaluate",
    "metrics_centralized": "metrics, centralized",
}


@dataclass(repr=False, eq=False)
class History:
    """Series of ``(server_round, value)``, in the order in which they were added.

    *Distributed* values were measured by clients and aggregated by the strategy; *centralized* ones
    were measured by ``Strategy.evaluate`` on the server. Round 0 is the initial model.
    """

    losses_distributed: Losses = field(default_factory=list)
    losses_centralized: Losses = field(default_factory=list)
    metrics_distributed_fit: MetricSeries = field(default_factory=dict)
    metrics_distributed: MetricSeries = field(default_factory=dict)
    metrics_centralized: MetricSeries = field(default_factory=dict)

    def add_loss_distributed(self, server_round: int, loss: float) -> None:
        """Add a loss measured by clients."""
        self.losses_distributed.append((server_round, float(loss)))

    def add_loss_centralized(self, server_round: int, loss: float) -> None:
        """Add a loss measured by the server."""
        self.losses_centralized.append((server_round, float(loss)))

    def add_metrics_distributed_fit(self, server_round: int, metrics: Mapping[str, Scalar]) -> None:
        """Add metrics measured by clients in training."""
        _extend(self.metrics_distributed_fit, server_round, metrics)

    def add_metrics_distributed(self, server_round: int, metrics: Mapping[str, Scalar]) -> None:
        """Add metrics measured by clients in evaluation."""
        _extend(self.metrics_distributed, server_round, metrics)

    def add_metrics_centralized(self, server_round: int, metrics: Mapping[str, Scalar]) -> None:
        """Add metrics measured by the server."""
        _extend(self.metrics_centralized, server_round, metrics)

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same series; NaN equals NaN here."""
        if not isinstance(other, History):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        """List the non-empty series, as Flower does."""
        parts = []
        for name, title in _LOSSES.items():
            if series := getattr(self, name):
                lines = "".join(f"\tround {number}: {loss}\n" for number, loss in series)
                parts.append(f"History ({title}):\n{lines}")
        for name, title in _METRICS.items():
            if metrics := getattr(self, name):
                end = "" if name == "metrics_centralized" else "\n"
                parts.append(f"History ({title}):\n{pprint.pformat(metrics)}{end}")
        return "".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the series in a form that JSON can hold, with every value exact.

        Bytes become ``{"bytes": base64}``, and floats that JSON lacks ``{"float": "nan"}``.
        """
        losses = {name: _encode(getattr(self, name)) for name in _LOSSES}
        metrics = {
            name: {key: _encode(series) for key, series in getattr(self, name).items()}
            for name in _METRICS
        }
        return losses | metrics

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> History:
        """Return the history whose `to_dict` is ``stored``; unknown keys are ignored.

        Raises:
            StoredDataError: ``stored`` has another form.
        """
        try:
            losses: dict[str, Any] = {name: _decode(stored[name]) for name in _LOSSES}
            metrics: dict[str, Any] = {
                name: {key: _decode(series) for key, series in stored[name].items()}
                for name in _METRICS
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoredDataError(f"not a history that flmq stored: {error!r}") from error
        return cls(**losses, **metrics)


def _extend(into: MetricSeries, server_round: int, metrics: Mapping[str, Scalar]) -> None:
    for key, value in check_scalars(metrics, f"the metrics of round {server_round}").items():
        into.setdefault(key, []).append((server_round, value))


def _encode(series: list[tuple[int, Scalar]]) -> list[list[Any]]:
    return [[server_round, _encode_scalar(value)] for server_round, value in series]


def _encode_scalar(value: Scalar) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _decode(series: list[list[Any]]) -> list[Any]:
    return [(int(server_round), _decode_scalar(value)) for server_round, value in series]


def _decode_scalar(value: Any) -> Scalar:
    match value:
        case {"bytes": str(text)}:
            return base64.b64decode(text, validate=True)
        case {"float": str(text)}:
            return float(text)
        case bool() | int() | float() | str():
            return value
    raise ValueError(f"{value!r} is no scalar")
