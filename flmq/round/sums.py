"""Decide the fate of partial sums: each counts whole, or is refused whole.

An aggregator answers its order with the sum of many replies, from which no single one can be taken
out again. So a sum settles its asks only while each of them is open. What waits (for its phase to
be opened, or to be closed durably) waits un-acked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from flmq.round.actions import Action, Outcome, Settle
from flmq.round.events import SettledTogether
from flmq.round.fates import SumFate
from flmq.round.job_actions import (
    LONG_OVER,
    Ack,
    Count,
    Enter,
    EnterSum,
    Entry,
    JobAction,
    Merge,
    Refuse,
    SendReceipt,
    Verdict,
)
from flmq.round.job_events import Origin, PhaseOpened, SumCame, named_claim
from flmq.round.keys import PhaseKey
from flmq.round.state import Round

__all__ = [
    "PartialSums",
    "again_actions",
    "late_actions",
    "not_open",
    "other_actions",
    "settled_actions",
]


class TakesSums(Protocol):
    """A phase as this module sees it."""

    opened: PhaseOpened
    round: Round

    def late_by(self, at: float) -> float:
        """Return for how many seconds it had been closed by then; 0 if that is unknown."""


class PartialSums:
    """The partial sums that were taken, and those that wait for their phase to be opened."""

    def __init__(self) -> None:
        """Start without any."""
        self._taken: dict[PhaseKey, set[str]] = {}
        """Ids of the orders whose sums were taken."""
        self._early: dict[PhaseKey, list[int]] = {}

    def is_taken(self, order_id: str, key: PhaseKey) -> bool:
        """Return whether the sum that answers this order of a phase counts."""
        return order_id in self._taken.get(key, ())

    def take(self, event: SumCame) -> None:
        """Note that a sum counts: it is a duplicate when it comes again."""
        self._taken.setdefault(event.key, set()).add(event.order_id)

    def wait(self, event: SumCame) -> None:
        """Keep a sum until its phase is opened."""
        self._early.setdefault(event.key, []).append(event.token)

    def opened(self, key: PhaseKey) -> list[int]:
        """Return the tokens of the sums that waited for this phase."""
        return self._early.pop(key, [])

    def forget(self, key: PhaseKey) -> None:
        """Forget the sums of a phase that is no longer in memory."""
        self._taken.pop(key, None)


def not_open(phase: TakesSums, tasks: Iterable[str]) -> str:
    """Return why not all of these tasks are open in a phase; empty if they are."""
    seen = set[str]()
    for task in tasks:
        ask = phase.opened.asks.get(task)
        if ask is None:
            return f"it lists task {task}, which was not asked in this phase"
        if task in seen:
            return f"it lists {ask} twice"
        if not phase.round.expects(ask):
            return f"it lists {ask}, whose answer is settled already"
        seen.add(task)
    return ""


def settled_actions(
    event: SumCame, phase: TakesSums, *, is_journaled: bool
) -> tuple[list[JobAction], list[Action]]:
    """Count a sum; return how it is handled, and what the round says besides.

    The order is that of a reply: journal, count, merge, receipts, ack. One from the record is
    counted and merged.
    """
    entries, key = event.entries, event.key
    claims = tuple(named_claim(each.claim, phase.opened.asks[each.task_id]) for each in entries)
    said = phase.round.handle(SettledTogether(claims))
    outcomes = [action.outcome for action in said[: len(claims)] if isinstance(action, Settle)]
    answers = [
        (each, outcome.client_id, Verdict.of(outcome))
        for each, outcome in zip(entries, outcomes, strict=True)
    ]
    is_new, actions = event.origin is not Origin.RECORD, list[JobAction]()
    # One of nobody leaves no record and adds nothing: a later server has its order answered anew.
    if is_journaled and is_new and answers:
        actions += [Enter(each.token, key, ask, Entry.REPLY, word) for each, ask, word in answers]
        actions.append(EnterSum(event.token, key, tuple(each.token for each in entries)))
    actions += [Count(key, ask, word, each.token) for each, ask, word in answers]
    if answers:
        actions.append(Merge(event.token, key))
    if is_new:
        actions += [SendReceipt(each.token, word) for each, _, word in answers]
        actions.append(SendReceipt(event.token, Verdict(Outcome.ACCEPTED)))
    return [*actions, Ack(event.token)], said[len(claims) :]


def late_actions(event: SumCame, phase: TakesSums, *, is_journaled: bool) -> list[JobAction]:
    """Return how a sum of a closed phase is handled: as each of its replies would be."""
    key, late_by = event.key, phase.late_by(event.at)
    answers = list[tuple[int, str, Verdict]]()
    for each in event.entries:
        ask = phase.opened.asks.get(each.task_id)
        if ask is not None:
            word = Outcome.LATE if phase.round.is_unanswered(ask) else Outcome.DUPLICATE
            phase.round.handle(named_claim(each.claim, ask))
            answers.append((each.token, ask, Verdict(word, "", late_by)))
    actions = list[JobAction]()
    if is_journaled:
        actions += [Enter(token, key, ask, Entry.LATE, said) for token, ask, said in answers]
    actions += [Count(key, ask, said, token) for token, ask, said in answers]
    actions += [SendReceipt(token, said) for token, _, said in answers]
    actions.append(SendReceipt(event.token, Verdict(Outcome.LATE, "", late_by)))
    return [*actions, Ack(event.token)]


def again_actions(event: SumCame, phase: TakesSums) -> list[JobAction]:
    """Return how a sum is handled whose order's sum was taken before.

    Its clients' receipts may have been lost with the server that took it. One that was made again,
    as its aggregator lost what it had, may list others: these keep their replies.
    """
    tokens = list[int]()
    for each in event.entries:
        ask = phase.opened.asks.get(each.task_id)
        if ask is not None and not (phase.round.expects(ask) or phase.round.is_unanswered(ask)):
            tokens.append(each.token)
    verdict = Verdict(Outcome.DUPLICATE)
    return [*(SendReceipt(token, verdict) for token in (*tokens, event.token)), Ack(event.token)]


def other_actions(event: SumCame, fate: SumFate, reason: str) -> list[JobAction]:
    """Return how a sum is handled that is refused, or of nobody's knowledge."""
    match fate:
        case SumFate.REFUSED | SumFate.SETTLES:
            verdict = Verdict(Outcome.REJECTED, reason)
            refuse = Refuse(event.token, event.key, reason)
            return [refuse, SendReceipt(event.token, verdict), Ack(event.token)]
        case _:
            return [SendReceipt(event.token, LONG_OVER), Ack(event.token)]
