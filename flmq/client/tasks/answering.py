"""Answer one task: call the user's code, and turn whatever it does into a reply."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from flmq.client.client import CallNotImplemented, Client, answer
from flmq.common.errors import InvalidReturnValue, TransportClosed
from flmq.common.logger import logger
from flmq.common.typing import DisconnectRes, EvaluateRes, FitRes, ReconnectIns
from flmq.wire import Failure, FailureKind, Reply, Res, Task
from flmq.wire.failures import failure_of
from flmq.wire.kinds import UnknownKind

__all__ = ["LONGEST_LEAVE", "answer_task", "call_client", "reply_to", "unknown_kind"]

LONGEST_LEAVE = 24 * 3600
"""Maximum number of seconds for which a server may send a client away."""
_FORKED = 70
"""Exit status of a child that the user's code forked and that returned here."""


def answer_task(
    task: Task,
    get_task: Callable[[], Task],
    get_client: Callable[[], Client],
    now: Callable[[], float],
    *,
    level: int = logging.INFO,
    elsewhere: Callable[[Task], Res] | None = None,
) -> Reply:
    """Do what ``task`` asks. Blocks for as long as the user's code trains; never raises its errors.

    Only Ctrl-C and an exit on the main thread pass, as they may come from a signal: the task stays.

    ``get_task`` returns the task with its model, which it may have to read first; ``now`` gives
    Unix seconds, to check the task's deadline; ``level`` is the level of the log line for a task
    that succeeded. With ``elsewhere``, another process's client is called by it instead, with the
    task and its model.
    """
    started = time.monotonic()
    res = _expired(task, now()) or _answer(task, get_task, get_client, elsewhere)
    seconds = time.monotonic() - started
    _log(task, res, seconds, level)
    return reply_to(task, res, seconds)


def reply_to(task: Task, res: Res, seconds: float) -> Reply:
    """Return the reply to ``task``; ``seconds`` is how long the call took."""
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
        base="" if task.model is None else task.model.digest,
        run=task.run,
    )


def _expired(task: Task, now: float) -> Failure | None:
    if task.deadline_unix_ms is None or now * 1000 <= task.deadline_unix_ms:
        return None
    late = now - task.deadline_unix_ms / 1000
    return Failure(
        FailureKind.EXPIRED, "Expired", f"came to the task {late:.1f} s after its deadline"
    )


def _answer(
    task: Task,
    get_task: Callable[[], Task],
    get_client: Callable[[], Client],
    elsewhere: Callable[[Task], Res] | None,
) -> Res:
    if isinstance(task.ins, ReconnectIns):
        return _leaving(task.ins)
    if isinstance(task.ins, UnknownKind):
        return unknown_kind(task)
    try:
        loaded = get_task()
    except TransportClosed:
        raise
    except Exception as error:  # whatever goes wrong, only the task fails
        return failure_of(FailureKind.REFUSED, error)
    if elsewhere is not None:
        return elsewhere(loaded)
    try:
        return call_client(get_client, loaded.ins)
    except BaseException as error:
        _say_it_ends(task, error)
        raise


def call_client(
    get_client: Callable[[], Client],
    ins: object,
    ends: Callable[[BaseException], bool] | None = None,
) -> Res:
    """Call the client's method for ``ins``; what it raises is a failure.

    Except what ``ends`` says is to end the process: by default Ctrl-C and an exit, on the main
    thread, as a signal's handler raises them.
    """
    process = os.getpid()
    try:
        return answer(get_client(), ins)
    except InvalidReturnValue as error:
        return failure_of(FailureKind.BAD_RETURN, error)
    except CallNotImplemented as error:
        return failure_of(FailureKind.REFUSED, error)
    except Exception as error:
        return failure_of(FailureKind.EXCEPTION, error)
    except BaseException as error:
        if not (ends or _ends_the_process)(error):
            return failure_of(FailureKind.EXCEPTION, error)
        raise
    finally:
        if os.getpid() != process:
            os._exit(_FORKED)  # a forked child: the worker belongs to its parent


def _leaving(ins: ReconnectIns) -> Res:
    if ins.seconds is None or 0 <= ins.seconds <= LONGEST_LEAVE:
        return DisconnectRes(reason="leaving")
    said = f"asked to leave for {ins.seconds} s: 0 to {LONGEST_LEAVE} it may be"
    return Failure(FailureKind.REFUSED, "ValueError", said)


def unknown_kind(task: Task) -> Failure:
    """Return the failure of a task of a kind that is not registered here."""
    said = (
        f"this client does not know messages of kind {task.phase.value}: register it in the "
        "client's program"
    )
    return Failure(FailureKind.REFUSED, "UnknownKind", said)


def _ends_the_process(error: BaseException) -> bool:
    """Return whether to re-raise: only a signal's handler raises these on the main thread."""
    here = threading.current_thread() is threading.main_thread()
    return here and isinstance(error, KeyboardInterrupt | SystemExit)


def _say_it_ends(task: Task, error: BaseException) -> None:
    if isinstance(error, SystemExit):
        logger.error(
            "job %s, round %d, %s: the process exits (SystemExit: %s); started again, the client "
            "begins this task anew",
            *(task.job, task.server_round, task.phase.value, error),
        )


def _log(task: Task, res: Res, seconds: float, level: int) -> None:
    where = f"job {task.job}, round {task.server_round}, {task.phase.value}"
    if isinstance(res, Failure):
        tail = f"\n{res.traceback_tail.rstrip()}" if res.traceback_tail else ""
        logger.error("%s: %s%s", where, res.text, tail)
    elif isinstance(res, FitRes | EvaluateRes):
        logger.log(level, "%s: %s examples in %.2f s", where, res.num_examples, seconds)
    else:
        logger.log(level, "%s: answered in %.2f s", where, seconds)
