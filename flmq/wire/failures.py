"""Failures made of exceptions, which may be the user's own and may not even be shown."""

from __future__ import annotations

from collections.abc import Callable

from flmq.common.tracebacks import user_traceback
from flmq.wire.envelopes import Failure, FailureKind

__all__ = ["failure_of"]


def failure_of(kind: FailureKind, error: BaseException) -> Failure:
    """``error`` as the server is told of it: its type, its text, its traceback in user code."""
    return Failure(
        kind=kind,
        exception_type=type(error).__name__,
        message=_shown(lambda: str(error)),
        traceback_tail=_shown(lambda: user_traceback(error)),
    )


def _shown(make: Callable[[], str]) -> str:
    """What an exception says of itself, which may be the user's code too."""
    try:
        return make()
    except Exception as error:
        return f"<it cannot be shown: {type(error).__name__}>"
