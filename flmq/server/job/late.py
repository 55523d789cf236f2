"""Late replies as the server handles them: what counts in a later round, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.errors import MalformedMessage
from flmq.common.failure_text import named_text
from flmq.common.typing import FitRes
from flmq.round import LateReplyRef
from flmq.server.strategy.late import LateFitRes
from flmq.server.strategy.reply_check import ParametersSpec
from flmq.wire import Failure, FailureKind, FileParameters, Reply
from flmq.wire.failures import why_failed

__all__ = ["EXPIRED", "Late", "LateReplyPolicy", "late_of", "misfit", "why_not_later"]


EXPIRED = "expired"
"""How the note of a reply begins that says that its client came to the task too late."""


@dataclass(frozen=True, slots=True)
class LateReplyPolicy:
    """That late replies of a run count in later rounds, and how."""

    until: int
    """The last round: what comes late to it has none to count in."""
    check: Callable[[ParametersSpec, FitRes], str | None]
    """Why a FitRes does not match what was sent, or None."""


@dataclass(frozen=True, slots=True)
class Late:
    """A late reply that counts in a later round."""

    ref: LateReplyRef
    res: LateFitRes


def late_of(reply: Reply) -> Late:
    """The reply as a later round counts it."""
    res = reply.res
    assert isinstance(res, FitRes)
    return Late(
        LateReplyRef(reply.client_id, reply.server_round, reply.task_id),
        LateFitRes(res.status, res.parameters, res.num_examples, res.metrics, reply.server_round),
    )


def why_not_later(reply: Reply) -> str:
    """Why a late reply could not count whatever was asked; empty where it could."""
    res = reply.res
    if isinstance(res, Failure) and res.kind is FailureKind.EXPIRED:
        return f"{EXPIRED}: {res.message}"
    why = why_failed(res)
    return "" if why is None else named_text("failed", why)


def misfit(reply: Reply, sent: ParametersSpec | None, policy: LateReplyPolicy) -> str:
    """Why a late reply does not match what was ``sent`` to its client; empty where it does."""
    res = reply.res
    assert isinstance(res, FitRes)
    if reply.blob is not None and not isinstance(res.parameters, FileParameters):
        return "rejected: its parameters did not come"
    if sent is None:
        return "rejected: what was sent is no longer known"
    try:
        problem = policy.check(sent, res)
    except MalformedMessage as error:
        problem = str(error)
    return "" if problem is None else f"rejected: {problem}"
