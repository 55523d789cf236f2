"""One task answered: the user's code is called, and whatever it does becomes a reply."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flmq.client.client import Client, answer
from flmq.common.errors import FlmqError, InvalidReturnValue, TransportClosed
from flmq.common.logger import logger
from flmq.common.tracebacks import user_traceback
from flmq.common.typing import DisconnectRes, EvaluateRes, FitRes, ReconnectIns
from flmq.wire import Failure, FailureKind, Reply, Res, Task

__all__ = ["answer_task"]


def answer_task(
    task: Task,
    get_task: Callable[[], Task],
    get_client: Callable[[], Client],
    now: Callable[[], float],
    *,
    level: int = logging.INFO,
) -> Reply:
    """Do what ``task`` asks. Blocks for as long as the user's code trains; raises nothing of it.

    ``get_task`` gives the task with its model, which it may have to read first; ``now`` gives
    Unix seconds, to find out whether the task's deadline has passed; ``level`` is that of the line
    of log for a task that went well.
    """
    started = time.monotonic()
    res = _expired(task, now()) or _answer(task, get_task, get_client)
    seconds = time.monotonic() - started
    _log(task, res, seconds, level)
    return Reply(
        task_id=task.task_id,
        job=task.job,
        server_round=task.server_round,
        phase=task.phase,
        client_id=task.client_id,
        epoch=task.epoch,
        nonce=task.nonce,
        seconds=seconds,
        res=res,
    )


def failure(kind: FailureKind, error: BaseException) -> Failure:
    """Describe an exception for the server."""
    return Failure(
        kind=kind,
        exception_type=type(error).__name__,
        message=str(error),
        traceback_tail=user_traceback(error),
    )


def _expired(task: Task, now: float) -> Failure | None:
    if task.deadline_unix_ms is None or now * 1000 <= task.deadline_unix_ms:
        return None
    late = now - task.deadline_unix_ms / 1000
    return Failure(
        FailureKind.EXPIRED, "Expired", f"came to the task {late:.1f} s after its deadline"
    )


def _answer(task: Task, get_task: Callable[[], Task], get_client: Callable[[], Client]) -> Res:
    if isinstance(task.ins, ReconnectIns):
        return DisconnectRes(reason="leaving")
    try:
        ins = get_task().ins
    except TransportClosed:
        raise
    except (FlmqError, MemoryError, OSError) as error:
        return failure(FailureKind.REFUSED, error)
    assert not isinstance(ins, ReconnectIns)
    try:
        return answer(get_client(), ins)
    except InvalidReturnValue as error:
        return failure(FailureKind.BAD_RETURN, error)
    except Exception as error:
        return failure(FailureKind.EXCEPTION, error)


def _log(task: Task, res: Res, seconds: float, level: int) -> None:
    where = f"job {task.job}, round {task.server_round}, {task.phase.value}"
    if isinstance(res, Failure):
        tail = f"\n{res.traceback_tail.rstrip()}" if res.traceback_tail else ""
        logger.error("%s: %s: %s%s", where, res.exception_type, res.message, tail)
    elif isinstance(res, FitRes | EvaluateRes):
        logger.log(level, "%s: %s examples in %.2f s", where, res.num_examples, seconds)
    else:
        logger.log(level, "%s: answered in %.2f s", where, seconds)
