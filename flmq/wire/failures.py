"""Convert exceptions to failures; they may be the user's own, and may even fail to print."""

from __future__ import annotations

from collections.abc import Callable

from flmq.common.tracebacks import user_traceback
from flmq.wire.envelopes import Failure, FailureKind

__all__ = ["failure_of"]


def failure_of(kind: FailureKind, error: BaseException) -> Failure:
    """Return ``error`` as a failure: its type, its text, its traceback in user code."""
    return Failure(
        kind=kind,
        exception_type=type(error).__name__,
        message=_shown(lambda: str(error)),
        traceback_tail=_shown(lambda: user_traceback(error)),
    )


def _shown(make: Callable[[], str]) -> str:
    """Return the text of an exception, which may be produced by user code."""
    try:
        return make()
    except Exception as error:
        return f"<it cannot be shown: {type(error).__name__}>"
