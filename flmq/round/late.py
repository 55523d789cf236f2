"""Late replies that count in a later round: which round takes which."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from flmq.round.actions import LateReplyRef
from flmq.round.events import LateReplyOffered
from flmq.round.job_actions import Carry, JobAction
from flmq.round.job_events import PhaseOpened
from flmq.round.state import Round, RoundState

__all__ = ["LateReplies"]


class TakesLate(Protocol):
    """A phase, as seen by late replies."""

    opened: PhaseOpened
    round: Round


class LateReplies:
    """The late replies of a job, taken or waiting.

    A wanted reply is offered to the open phase that takes late ones; without one, it waits for the
    next. Which phase it lands in is a race, which that phase's closing set decides for good: a
    phase that an earlier server closed gets what it was closed with.
    """

    def __init__(self, until: int, waiting: Iterable[LateReplyRef], last: int) -> None:
        """Start, or continue from the record.

        ``until`` is the last round in which late replies count; 0 if they never do. ``waiting`` are
        those that no phase has taken; ``last`` the last round that has taken some, or could have.
        """
        self._until = until
        self._waiting = list(waiting)
        self._last = last
        self._taking: TakesLate | None = None
        """The phase that takes late replies, or the last one that did."""

    @property
    def are_wanted(self) -> bool:
        """Whether late replies count at all."""
        return self._until > 0

    def has_round(self) -> bool:
        """Whether there is a round, open or future, in which a late reply can count."""
        taking = self._taking
        is_open = taking is not None and taking.round.state is RoundState.OPEN
        return self.are_wanted and (is_open or self._last < self._until)

    def give_to(self, phase: TakesLate) -> list[JobAction]:
        """Give a newly opened phase the late replies that count in it."""
        event = phase.opened
        if event.carried is not None:
            refs = list(event.carried)
        elif event.hands_over and self.are_wanted and event.asks:
            self._taking = phase
            refs, self._waiting = self._waiting, []
        else:
            return []
        self._last = max(self._last, event.key.server_round)
        return [Carry(event.key, ref) for ref in refs if phase.round.handle(LateReplyOffered(ref))]

    def offer(self, ref: LateReplyRef) -> tuple[int, list[JobAction]]:
        """Make a late reply count; return the round in which it does, and what to do."""
        taking = self._taking
        if taking is not None and taking.round.handle(LateReplyOffered(ref)):
            return taking.opened.key.server_round, [Carry(taking.opened.key, ref)]
        self._waiting.append(ref)
        return self._last + 1, []
