"""Late replies: which count in a later round, and why others do not."""

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
"""Start of the note on a reply whose client came to the task too late."""


@dataclass(frozen=True, slots=True)
class LateReplyPolicy:
    """How a run's late replies count in later rounds."""

    until: int
    """The last round: replies late to it cannot count in a later one."""
    check: Callable[[ParametersSpec, FitRes], str | None]
    """Returns why a FitRes does not match what was sent; None: it matches."""
    cast: bool = False
    """Whether float tensors of another dtype than was sent are cast to it."""


@dataclass(frozen=True, slots=True)
class Late:
    """A late reply that counts in a later round."""

    ref: LateReplyRef
    res: LateFitRes


def late_of(reply: Reply) -> Late:
    """Return the reply in the form in which a later round counts it."""
    res = reply.res
    assert isinstance(res, FitRes)
    return Late(
        LateReplyRef(reply.client_id, reply.server_round, reply.task_id),
        LateFitRes(res.status, res.parameters, res.num_examples, res.metrics, reply.server_round),
    )


def why_not_later(reply: Reply) -> str:
    """Return why a late reply cannot count, whatever was asked; empty: it can."""
    res = reply.res
    if isinstance(res, Failure) and res.kind is FailureKind.EXPIRED:
        return f"{EXPIRED}: {res.message}"
    why = why_failed(res)
    return "" if why is None else named_text("failed", why)


def misfit(reply: Reply, sent: ParametersSpec | None, policy: LateReplyPolicy) -> str:
    """Return why a late reply does not match ``sent`` (None: not known); empty: it matches."""
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
