"""Judge a reply as the server would, by what its order says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flmq.common.parameter import without_parameters
from flmq.common.typing import FitRes, Parameters
from flmq.region.work import Held, OrderInWork
from flmq.server.strategy.casting import cast_like
from flmq.server.strategy.reply_check import ReplyCheck, check_fit_reply
from flmq.wire import EntryOutcome, Failure, PartialEntry, Reply, ReplyRule, ref_of
from flmq.wire.failures import why_failed

__all__ = ["identity_problem", "judge"]

_CHECKS = {
    ReplyRule.LIKE_SENT: ReplyCheck.LIKE_SENT,
    ReplyRule.FINITE: ReplyCheck.FINITE,
    ReplyRule.NONE: ReplyCheck.NONE,
}


def identity_problem(work: OrderInWork, reply: Reply) -> str | None:
    """Return why a reply is not one of the client, job or phase that its task is of."""
    order, ask = work.order, work.asked(reply.task_id)
    if ask is None:
        return None
    if reply.nonce != ask.nonce:
        return "does not have its task's nonce"
    if reply.job != order.job or reply.phase is not order.phase:
        return "names another job or phase than its task"
    return None if reply.client_id == ask.client_id else f"answers the task of {ask.client_id}"


def judge(
    work: OrderInWork,
    reply: Reply,
    size: int,
    spoiled: str = "",
    *,
    unpack: Callable[[Reply], Reply | str],
    store: Callable[[Reply, Parameters], Reply],
) -> Held:
    """Return a reply of ``size`` bytes as it is held: with its parameters if it is accepted.

    ``spoiled`` says why its transfer failed; ``unpack`` decompresses it, or says why not; ``store``
    puts other parameters in place of its own.
    """
    order = work.order
    if reply.blob is not None and not spoiled:
        unpacked = unpack(reply)
        if isinstance(unpacked, str):
            spoiled = unpacked
        else:
            reply = unpacked
    res = reply.res
    outcome, reason = EntryOutcome.ACCEPTED, spoiled
    if not spoiled and why_failed(res) is not None:
        outcome = EntryOutcome.FAILED
    elif not spoiled and isinstance(res, FitRes):
        spec = work.spec
        assert spec is not None
        fitted = cast_like(spec, res.parameters) if order.cast else res.parameters
        if isinstance(fitted, str):
            reason = fitted
        else:
            if fitted is not res.parameters:
                reply = store(reply, fitted)
                res = reply.res
            assert isinstance(res, FitRes)
            reason = check_fit_reply(spec, res, _CHECKS[order.rule]) or ""
    if reason:
        outcome = EntryOutcome.REJECTED
    return _held(reply, res, outcome, reason, size)


def _held(reply: Reply, res: object, outcome: EntryOutcome, reason: str, size: int) -> Held:
    assert isinstance(res, FitRes | Failure)
    accepted = outcome is EntryOutcome.ACCEPTED
    digest = ""
    kept = None
    if accepted:
        assert isinstance(res, FitRes)
        digest = ref_of(res.parameters).digest
        kept = replace(reply, blob=None)
    told = res if isinstance(res, Failure) else without_parameters(res)
    entry = PartialEntry(
        reply.task_id,
        reply.client_id,
        outcome,
        told,
        reason,
        reply.seconds,
        size,
        digest,
        reply.times,
    )
    return Held(entry, kept)
