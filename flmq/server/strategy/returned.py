"""What the user's functions return to a strategy, checked at once and not rounds later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flmq.common.errors import InvalidReturnValue
from flmq.common.scalars import check_scalars
from flmq.common.typing import Config, Metrics

__all__ = ["checked_config", "checked_evaluation", "checked_metrics"]


def checked_config(
    name: str, config_fn: Callable[[int], Config] | None, server_round: int
) -> Config:
    """Return what the user's ``config_fn`` gives for this round; {} where there is no function.

    Raises:
        InvalidReturnValue: it gives something else than a dict of scalars.
    """
    if config_fn is None:
        return {}
    config: object = config_fn(server_round)
    if not isinstance(config, dict):
        raise InvalidReturnValue(
            f"{name}({server_round}) returned a {type(config).__name__}, not a dict of scalars. "
            'Example:\n\n    return {"lr": 0.1, "local_epochs": 5}\n'
        )
    return check_scalars(config, f"the entries of {name}({server_round})")


def checked_evaluation(measured: Any) -> tuple[float, Metrics] | None:
    """Return loss and metrics as ``evaluate_fn`` gave them.

    Raises:
        InvalidReturnValue: it gave neither a pair of them nor None.
    """
    match measured:
        case None:
            return None
        case (loss, dict() as metrics) if not isinstance(loss, str | bytes):
            try:
                return float(loss), check_scalars(metrics, "the metrics that evaluate_fn returned")
            except (TypeError, ValueError):
                pass
    raise InvalidReturnValue(
        f"evaluate_fn returned a {type(measured).__name__} that is no pair of a loss and a dict "
        'of metrics. Example:\n\n    return 0.5, {"accuracy": 0.95}\n\nor None to skip this round.'
    )


def checked_metrics(aggregated: object) -> Metrics:
    """Return the metrics that the user's aggregation function gave.

    Raises:
        InvalidReturnValue: it gave something else than a dict of scalars.
    """
    return check_scalars(aggregated, "the metrics that the aggregation function returned")
