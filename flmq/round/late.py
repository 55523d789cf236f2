"""Assign late replies to the later rounds in which they count."""

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
    """A phase as this module sees it."""

    opened: PhaseOpened
    round: Round


class LateReplies:
    """The late replies of a job: counted in a phase, or waiting for one.

    A wanted reply goes to the open phase that takes late replies; if none is open, it waits for the
    next one. Which phase gets it depends on timing, and that phase's closing set records it: a
    phase that an earlier server closed gets exactly the late replies in its closing set.
    """

    def __init__(self, until: int, waiting: Iterable[LateReplyRef], last: int) -> None:
        """Start, or continue from the record.

        ``until`` is the last round in which late replies count; 0 if they never do. ``waiting`` are
        the late replies that no phase has counted yet, and ``last`` is the last round that counted
        some, or could have.
        """
        self._until = until
        self._waiting = list(waiting)
        self._last = last
        self._taking: TakesLate | None = None
        """The phase that takes late replies, or the last one that did; None before the first."""

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
        """Count in a newly opened phase the late replies that belong to it; return the actions."""
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
        """Count a late reply; return the round in which it counts, and the actions to perform."""
        taking = self._taking
        if taking is not None and taking.round.handle(LateReplyOffered(ref)):
            return taking.opened.key.server_round, [Carry(taking.opened.key, ref)]
        self._waiting.append(ref)
        return self._last + 1, []
