"""Why a client has no result: failures made of exceptions, and what a reply says of it."""

from __future__ import annotations

from collections.abc import Callable

from flmq.common.failure_text import status_text
from flmq.common.tracebacks import user_traceback
from flmq.common.typing import Code, Status
from flmq.wire.envelopes import Failure, FailureKind, Res

__all__ = ["failure_of", "why_failed"]


def failure_of(kind: FailureKind, error: BaseException) -> Failure:
    """Return ``error`` as a failure: its type, its text, its traceback in user code."""
    return Failure(
        kind=kind,
        exception_type=type(error).__name__,
        message=_shown(lambda: str(error)),
        traceback_tail=_shown(lambda: user_traceback(error)),
    )


def why_failed(res: Res) -> str | None:
    """Return why a client has no result, by what it replied; None if ``res`` is a result."""
    if isinstance(res, Failure):
        return res.text
    status = getattr(res, "status", None)
    if isinstance(status, Status) and status.code is not Code.OK:
        return status_text(status)
    return None


def _shown(make: Callable[[], str]) -> str:
    """Return the text of an exception, which may be produced by user code."""
    try:
        return make()
    except Exception as error:
        return f"<it cannot be shown: {type(error).__name__}>"
