"""Check what the user's functions and strategies return at once, not rounds later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flmq.common.errors import InvalidReturnValue
from flmq.common.failure_text import named_error
from flmq.common.logger import logger
from flmq.common.parameter import parameters_problem
from flmq.common.scalars import check_scalars
from flmq.common.typing import Config, EvaluateIns, FitIns, FitRes, Metrics, Parameters
from flmq.server.client_proxy import ClientProxy
from flmq.server.rhythm.deadlines import RoundPolicy
from flmq.server.strategy.strategy import Strategy

__all__ = [
    "checked_config",
    "checked_evaluation",
    "checked_instructions",
    "checked_loss",
    "checked_metrics",
    "checked_model",
    "checked_parameters",
    "checked_policy",
    "checked_refusal",
    "method_name",
]

_Ins = TypeVar("_Ins", FitIns, EvaluateIns)


def method_name(strategy: object, method: str) -> str:
    """Return the name of a strategy's method for errors: with its class, as the user wrote it."""
    return f"{type(strategy).__name__}.{method}"


def checked_config(
    name: str, config_fn: Callable[[int], Config] | None, server_round: int
) -> Config:
    """Return what the user's ``config_fn`` returned for this round; {} without a function.

    Raises:
        InvalidReturnValue: it is not a dict of scalars.
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
    """Return the loss and metrics that ``evaluate_fn`` returned.

    Raises:
        InvalidReturnValue: it is neither a pair of them nor None.
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
    """Return the metrics that the user's aggregation function returned.

    Raises:
        InvalidReturnValue: it is not a dict of scalars.
    """
    return check_scalars(aggregated, "the metrics that the aggregation function returned")


def checked_parameters(what: str, parameters: Any) -> Parameters:
    """Return the model that a strategy's method returned.

    Raises:
        InvalidReturnValue: it is not one, but a list of arrays, for example.
    """
    if (problem := parameters_problem(parameters)) is not None:
        raise InvalidReturnValue(f"{what} returned {problem}")
    found: Parameters = parameters
    return found


def checked_model(what: str, aggregated: Any) -> tuple[Parameters | None, Metrics]:
    """Return what a strategy's ``aggregate_fit`` returned: the model, or None, and metrics.

    Raises:
        InvalidReturnValue: it is not such a pair.
    """
    match aggregated:
        case (parameters, dict() as metrics):
            model = None if parameters is None else checked_parameters(what, parameters)
            return model, check_scalars(metrics, f"the metrics that {what} returned")
    raise InvalidReturnValue(
        f"{what} returned {_outline(aggregated)}, not a pair of Parameters (or None) and a dict of "
        "metrics. Example:\n\n    return ndarrays_to_parameters(arrays), {}\n"
    )


def checked_loss(what: str, measured: Any) -> tuple[float | None, Metrics]:
    """Return what ``aggregate_evaluate`` or ``evaluate`` returned: the loss, or None, and metrics.

    Raises:
        InvalidReturnValue: it is not such a pair.
    """
    match measured:
        case (None, dict() as metrics):
            return None, check_scalars(metrics, f"the metrics that {what} returned")
        case (loss, dict() as metrics) if not isinstance(loss, str | bytes):
            try:
                return float(loss), check_scalars(metrics, f"the metrics that {what} returned")
            except (TypeError, ValueError):
                pass
    raise InvalidReturnValue(
        f"{what} returned {_outline(measured)}, not a pair of a loss and a dict of metrics. "
        'Example:\n\n    return 0.5, {"accuracy": 0.95}\n'
    )


def checked_refusal(strategy: Strategy, res: FitRes) -> str | None:
    """Return what ``strategy.check_fit_res`` says of a reply; an exception in it refuses the reply.

    The server's thread that hears replies calls it, which goes on with the others.
    """
    try:
        said: object = strategy.check_fit_res(res)
    except Exception as error:
        logger.exception("%s failed", method_name(strategy, "check_fit_res"))
        return f"{method_name(strategy, 'check_fit_res')} failed: {named_error(error)}"
    return None if said is None else str(said)


def checked_instructions(
    what: str, chosen: Any, kind: type[_Ins]
) -> list[tuple[ClientProxy, _Ins]]:
    """Return the clients that a strategy's ``configure_*`` chose, with their requests.

    Raises:
        InvalidReturnValue: it is not a list of such pairs.
    """
    pairs = chosen if isinstance(chosen, list | tuple) else [chosen]
    for pair in pairs:
        match pair:
            # Their bytes are not read: they may be on disk.
            case (ClientProxy(), ins) if isinstance(ins, kind) and _is_model(ins.parameters):
                continue
        raise InvalidReturnValue(
            f"{what} returned {_outline(chosen)}{_within(chosen, pair)}, not a list of pairs of a "
            f"client and its {kind.__name__}. Example:\n\n    return [(client, "
            f"{kind.__name__}(parameters, {{}})) for client in client_manager.sample(2)]\n"
        )
    return list(pairs)


def _is_model(parameters: object) -> bool:
    return isinstance(parameters, Parameters)


def _outline(value: object) -> str:
    """Return the types of what was returned."""
    if isinstance(value, tuple):
        return f"({', '.join(type(each).__name__ for each in value)})"
    return f"a {type(value).__name__}"


def _within(chosen: object, pair: object) -> str:
    return f" with {_outline(pair)} in it" if isinstance(chosen, list | tuple) else ""


def checked_policy(method: str, policy: object) -> RoundPolicy:
    """Return the policy that the strategy's ``round_policy`` returned.

    Raises:
        InvalidReturnValue: it is something else.
    """
    if isinstance(policy, RoundPolicy):
        return policy
    raise InvalidReturnValue(
        f"{method} returned a {type(policy).__name__}, not a RoundPolicy. Example:\n\n"
        "    return dataclasses.replace(configured, timeout=60.0, target_results=asked // 2)\n"
    )
