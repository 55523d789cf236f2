"""Call proxies directly, in threads: functions of Flower's that programs' own tests use.

The server itself asks in phases (see `Phases`), which check, journal and combine replies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from flmq.common.typing import Code, EvaluateIns, EvaluateRes, FitIns, FitRes, Status
from flmq.server.client_proxy import ClientProxy

__all__ = [
    "EvaluateResultsAndFailures",
    "FitResultsAndFailures",
    "evaluate_client",
    "evaluate_clients",
    "fit_client",
    "fit_clients",
]

FitResultsAndFailures = tuple[
    list[tuple[ClientProxy, FitRes]], list[tuple[ClientProxy, FitRes] | BaseException]
]
EvaluateResultsAndFailures = tuple[
    list[tuple[ClientProxy, EvaluateRes]], list[tuple[ClientProxy, EvaluateRes] | BaseException]
]


class _HasStatus(Protocol):
    status: Status


_Ins = TypeVar("_Ins")
_Res = TypeVar("_Res", bound=_HasStatus)


def fit_clients(
    client_instructions: list[tuple[ClientProxy, FitIns]],
    max_workers: int | None,
    timeout: float | None,
    group_id: int,
) -> FitResultsAndFailures:
    """Let clients train, ``max_workers`` at a time (None: some per core), and wait for all.

    Args:
        client_instructions: the clients, and what to ask of each.
        max_workers: number of threads.
        timeout: seconds, passed to each call; None for no limit.
        group_id: the round, passed to each call.

    Returns:
        The results, and a failure for each client without one: the exception that its call raised,
        or the client and its reply, if its status is not OK. Both are in the order of
        ``client_instructions``; Flower's are in no order.
    """
    return _all(fit_client, client_instructions, max_workers, timeout, group_id)


def fit_client(
    client: ClientProxy, ins: FitIns, timeout: float | None, group_id: int
) -> tuple[ClientProxy, FitRes]:
    """Let one client train; return it and its reply."""
    return client, client.fit(ins, timeout=timeout, group_id=group_id)


def evaluate_clients(
    client_instructions: list[tuple[ClientProxy, EvaluateIns]],
    max_workers: int | None,
    timeout: float | None,
    group_id: int,
) -> EvaluateResultsAndFailures:
    """Let clients evaluate; as `fit_clients`."""
    return _all(evaluate_client, client_instructions, max_workers, timeout, group_id)


def evaluate_client(
    client: ClientProxy, ins: EvaluateIns, timeout: float | None, group_id: int
) -> tuple[ClientProxy, EvaluateRes]:
    """Let one client evaluate; return it and its reply."""
    return client, client.evaluate(ins, timeout=timeout, group_id=group_id)


def _all(
    call: Callable[[ClientProxy, _Ins, float | None, int], tuple[ClientProxy, _Res]],
    instructions: Sequence[tuple[ClientProxy, _Ins]],
    max_workers: int | None,
    timeout: float | None,
    group_id: int,
) -> tuple[list[tuple[ClientProxy, _Res]], list[tuple[ClientProxy, _Res] | BaseException]]:
    results: list[tuple[ClientProxy, _Res]] = []
    failures: list[tuple[ClientProxy, _Res] | BaseException] = []
    with ThreadPoolExecutor(max_workers) as pool:
        calls = [pool.submit(call, client, ins, timeout, group_id) for client, ins in instructions]
    for each in calls:
        error = each.exception()
        if error is not None:
            failures.append(error)
        elif each.result()[1].status.code == Code.OK:
            results.append(each.result())
        else:
            failures.append(each.result())
    return results, failures
