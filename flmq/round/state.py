"""The round: one state machine a client's task, and one for the round that holds them.

Theory of operation
-------------------
*Two kinds of machine.* Each asked client has a **task** machine; the **round** is OPEN or CLOSED.
A task sees the events that name its client; the round sees DeadlinePassed and Stopped, and after
every event looks at its tasks to find out whether it is over.

*Rule 1.* Everything that decides a transition is in this file: the two tables, the policy's
numbers and the tasks' states. There is no clock, no queue, no identity of a message here. Whoever
feeds the machine has decoded and checked the reply, and says which of three things it was.

*Rule 2: the order of events is the order in which they are fed.* Where the deadline and the last
reply coincide, the one that is fed first wins, for good; a journal that records the closing set
therefore records everything that is not a function of the tasks' replies.

*A task settles once.* ``PENDING`` ends in ACCEPTED, FAILED or REJECTED by a reply, in SILENT by the
closing of the round. UNROUTABLE comes from the broker, not the client: it settles the task for
the question whether to wait on, but a reply that comes all the same while the round is open is
better information and replaces it (a task published twice, over a broken connection, may have been
delivered once and returned once).

*A batch is one event.* Replies that an aggregator has added up count all or none of them, so the
round looks whether it is over after the last: it may then have more than ``target_results``.

*A reply that does not settle its task is still answered*: DUPLICATE where the task already had a
reply, LATE where the round had closed before any. Neither changes what the round closed with.

*A late reply of an earlier round* may be offered to a round that is open: it then counts there,
beside what that round asked for. It settles no task, closes nothing and is not among the
``min_results``: a round must not owe its quorum to another one's clients. To a closed round it is
offered in vain. ``Close`` names those that were taken, for which ones they are is a race.

*The round closes* when no task is pending; or when ``target_results`` replies are accepted (over-
selection: more are asked than are needed); or at the deadline; or when it is stopped. Closing
turns what is pending into SILENT. ``min_results`` does not close a round: it says how many accepted
replies a closing set must have to count, and ``Close.enough`` says whether it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flmq.round.actions import Action, Carry, Close, LateReplyRef, Outcome, Settle, TaskOutcome
from flmq.round.events import (
    DeadlinePassed,
    Event,
    LateReplyOffered,
    ReplyAccepted,
    ReplyFailed,
    ReplyRejected,
    SettledTogether,
    Stopped,
    TaskUnroutable,
)

__all__ = ["TASK_TRANSITIONS", "Policy", "Round", "RoundState", "TaskState", "UnexpectedEvent"]


class TaskState(Enum):
    """State of one client's task."""

    PENDING = "pending"
    UNROUTABLE = "unroutable"
    ACCEPTED = "accepted"
    FAILED = "failed"
    REJECTED = "rejected"
    SILENT = "silent"
    LOST = "lost"
    """Unroutable until the round closed."""
    LATE = "late"
    """Silent or lost, and then a reply came."""


class RoundState(Enum):
    """Whether replies still count."""

    OPEN = "open"
    CLOSED = "closed"


class _Closing:
    """Internal event: the round closes over a task that nobody answered."""


TaskEvent = type[ReplyAccepted | ReplyFailed | ReplyRejected | TaskUnroutable | _Closing]

_DUPLICATE: dict[TaskEvent, tuple[None, Outcome | None]] = {
    ReplyAccepted: (None, Outcome.DUPLICATE),
    ReplyFailed: (None, Outcome.DUPLICATE),
    ReplyRejected: (None, Outcome.DUPLICATE),
    TaskUnroutable: (None, None),
    _Closing: (None, None),
}
_LATE: dict[TaskEvent, tuple[TaskState | None, Outcome | None]] = {
    ReplyAccepted: (TaskState.LATE, Outcome.LATE),
    ReplyFailed: (TaskState.LATE, Outcome.LATE),
    ReplyRejected: (TaskState.LATE, Outcome.LATE),
    TaskUnroutable: (None, None),
    _Closing: (None, None),
}

# (state, event) -> (next state or None for "stays", outcome to report or None for nothing)
TASK_TRANSITIONS: dict[TaskState, dict[TaskEvent, tuple[TaskState | None, Outcome | None]]] = {
    TaskState.PENDING: {
        ReplyAccepted: (TaskState.ACCEPTED, Outcome.ACCEPTED),
        ReplyFailed: (TaskState.FAILED, Outcome.FAILED),
        ReplyRejected: (TaskState.REJECTED, Outcome.REJECTED),
        TaskUnroutable: (TaskState.UNROUTABLE, None),
        _Closing: (TaskState.SILENT, Outcome.SILENT),
    },
    TaskState.UNROUTABLE: {
        ReplyAccepted: (TaskState.ACCEPTED, Outcome.ACCEPTED),
        ReplyFailed: (TaskState.FAILED, Outcome.FAILED),
        ReplyRejected: (TaskState.REJECTED, Outcome.REJECTED),
        TaskUnroutable: (None, None),
        _Closing: (TaskState.LOST, Outcome.UNROUTABLE),
    },
    TaskState.ACCEPTED: {**_DUPLICATE},
    TaskState.FAILED: {**_DUPLICATE},
    TaskState.REJECTED: {**_DUPLICATE},
    TaskState.SILENT: {**_LATE},
    TaskState.LOST: {**_LATE},
    TaskState.LATE: {**_DUPLICATE},
}


class UnexpectedEvent(Exception):
    """An event that this round cannot have: a bug of the caller, not of a peer."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When a round is over, and when it counts."""

    min_results: int = 1
    """Accepted replies that a closing set needs to be aggregated."""
    target_results: int | None = None
    """Accepted replies at which the round closes at once; None to wait for all asked."""

    def __post_init__(self) -> None:
        """Refuse numbers that contradict each other."""
        if self.min_results < 0:
            raise ValueError(f"min_results is {self.min_results}; it counts replies: use 0 or more")
        if self.target_results is not None and self.target_results < max(1, self.min_results):
            raise ValueError(
                f"target_results is {self.target_results} and min_results {self.min_results}: a "
                "round that closes at its target must then have enough; raise target_results"
            )


class Round:
    """One phase of one round: the clients asked, and the outcome of each.

    ``label`` names it in errors ("job mnist, round 3, fit"). Not thread-safe.
    """

    def __init__(self, asked: tuple[str, ...], policy: Policy, *, label: str = "") -> None:
        """Open a round over the ``asked`` client ids, which must be distinct."""
        if len(set(asked)) != len(asked):
            raise ValueError(f"{label}: a client is asked twice in one round")
        self.label = label
        self.policy = policy
        self.state = RoundState.OPEN
        self.tasks: dict[str, TaskState] = dict.fromkeys(asked, TaskState.PENDING)
        self.reasons: dict[str, str] = {}
        self._pending = len(asked)
        self._accepted = 0
        self._carried: set[LateReplyRef] = set()
        self._closed_with: tuple[TaskOutcome, ...] | None = None

    def open(self) -> list[Action]:
        """Start: a round that asks nobody is over at once."""
        return self._look()

    def handle(self, event: Event) -> list[Action]:
        """Process one event; return what to do, in order."""
        match event:
            case DeadlinePassed():
                return self._close("deadline")
            case Stopped(reason):
                return self._close(reason)
            case LateReplyOffered(carried):
                return self._carry(carried)
            case SettledTogether(claims):
                settled = [action for claim in claims for action in self._settle(claim)]
                return [*settled, *self._look()]
            case _:
                return [*self._settle(event), *self._look()]

    def expects(self, client_id: str) -> bool:
        """Return whether a reply of this client would settle its task."""
        awaited = (TaskState.PENDING, TaskState.UNROUTABLE)
        return self.state is RoundState.OPEN and self.tasks.get(client_id) in awaited

    def is_unanswered(self, client_id: str) -> bool:
        """Return whether the round closed without this client's reply, and none has come since."""
        return self.tasks.get(client_id) in (TaskState.SILENT, TaskState.LOST)

    def is_pending(self, client_id: str) -> bool:
        """Return whether nothing has come from this client."""
        return self.tasks.get(client_id) is TaskState.PENDING

    @property
    def num_pending(self) -> int:
        """The number of clients from which nothing has come."""
        return self._pending

    def accepted(self) -> tuple[str, ...]:
        """Return the clients whose reply counts, in client-id order."""
        return tuple(sorted(c for c, s in self.tasks.items() if s is TaskState.ACCEPTED))

    def pending(self) -> tuple[str, ...]:
        """Return the clients from which nothing has come, in client-id order."""
        return tuple(sorted(c for c, s in self.tasks.items() if s is TaskState.PENDING))

    def outcomes(self) -> tuple[TaskOutcome, ...]:
        """Return every settled task's outcome, in client-id order; late replies change none."""
        if self._closed_with is not None:
            return self._closed_with
        return tuple(
            TaskOutcome(client_id, _WORDS[state], self.reasons.get(client_id, ""))
            for client_id, state in sorted(self.tasks.items())
            if state in _WORDS
        )

    def _settle(
        self, event: ReplyAccepted | ReplyFailed | ReplyRejected | TaskUnroutable
    ) -> list[Action]:
        state = self.tasks.get(event.client_id)
        if state is None:
            raise UnexpectedEvent(
                f"{self.label}: {type(event).__name__} for {event.client_id!r}, who was not asked"
            )
        reason = getattr(event, "reason", "")
        return self._step(event.client_id, state, type(event), reason)

    def _carry(self, carried: LateReplyRef) -> list[Action]:
        if self.state is RoundState.CLOSED or carried in self._carried:
            return []
        self._carried.add(carried)
        return [Carry(carried)]

    def _step(
        self, client_id: str, state: TaskState, event: TaskEvent, reason: str
    ) -> list[Action]:
        target, word = TASK_TRANSITIONS[state][event]
        if target is not None:
            self._pending -= state is TaskState.PENDING
            self._accepted += target is TaskState.ACCEPTED
            self.tasks[client_id] = target
            self.reasons[client_id] = reason
        return [] if word is None else [Settle(TaskOutcome(client_id, word, reason))]

    def _look(self) -> list[Action]:
        """Close if there is nothing left to wait for."""
        if self.state is RoundState.CLOSED:
            return []
        target = self.policy.target_results
        if target is not None and self._accepted >= target:
            return self._close(f"enough answered ({target})")
        if self._pending == 0:
            return self._close("all answered")
        return []

    def _close(self, reason: str) -> list[Action]:
        if self.state is RoundState.CLOSED:
            return []
        self.state = RoundState.CLOSED
        actions: list[Action] = []
        for client_id, state in sorted(self.tasks.items()):
            why = "no queue on the broker" if state is TaskState.UNROUTABLE else reason
            actions += self._step(client_id, state, _Closing, why)
        self._closed_with = self.outcomes()
        accepted = self.accepted()
        enough = len(accepted) >= self.policy.min_results
        return [*actions, Close(reason, accepted, enough, tuple(sorted(self._carried)))]


_WORDS = {
    TaskState.ACCEPTED: Outcome.ACCEPTED,
    TaskState.FAILED: Outcome.FAILED,
    TaskState.REJECTED: Outcome.REJECTED,
    TaskState.SILENT: Outcome.SILENT,
    TaskState.LOST: Outcome.UNROUTABLE,
}
