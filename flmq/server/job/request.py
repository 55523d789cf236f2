"""What is asked of clients, and what it brought: as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flmq.common.errors import FlmqError, RunError
from flmq.common.failure_text import named_error
from flmq.common.phase import Phase
from flmq.common.typing import FitRes
from flmq.journal.state import StateValue
from flmq.observe.events import RoundCounts
from flmq.round import Policy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job.late import Late
from flmq.wire import Ins, Res
from flmq.wire.kinds import check_reply

__all__ = [
    "Ask",
    "Check",
    "NotAddedUp",
    "PhaseResult",
    "Request",
    "Sink",
    "accept_anything",
]


class NotAddedUp(RunError):
    """The server's own disk or memory does not suffice to add a reply up."""

    def __init__(self, client_id: str, error: Exception) -> None:
        """Name whose reply it is, and the cause."""
        self.client_id = client_id
        super().__init__(
            f"the server cannot add up the reply of {client_id}, which is not to blame "
            f"({named_error(error)}): see to its memory and disk; where the job has a "
            "journal, start the server again to go on"
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """Whom to ask, and what."""

    client_id: str
    ins: Ins


Check = Callable[[Ins, Res], str | None]
"""Why a reply does not answer what was asked, or None if it does."""


class Sink(Protocol):
    """What takes in accepted fit replies as they come, so that nobody need keep them."""

    def add(self, client_id: str, res: FitRes) -> None:
        """Take in one client's reply; raises `AggregationError` where it cannot."""


def accept_anything(ins: Ins, res: Res) -> str | None:
    """Take every reply that decodes."""
    return None


@dataclass(frozen=True, slots=True)
class Request:
    """Asks that are opened together, as a phase, and when that is over."""

    phase: Phase
    server_round: int
    asks: Sequence[Ask]
    """A client that is in it twice is asked twice."""
    timeout: float | None
    """Seconds until the deadline; None: wait without limit."""
    policy: Policy = field(default_factory=lambda: Policy(min_results=0))
    check: Check = check_reply
    """Of replies of the right type; the check of the kind where nothing else is given."""
    sink: Sink | None = None
    """Where each accepted reply's parameters go as it comes; they are then no longer in it."""
    state: Mapping[str, StateValue] | None = None
    """The strategy's state after it chose whom to ask: makes the phase part of the job's journal,
    where there is one. None: it is asked anew after a restart."""
    hands_over: bool = False
    """Whether late replies to it may count in a later phase, and those to earlier ones in it."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What a phase brought, by the names of its asks, in the order of client ids."""

    replies: dict[str, Res]
    """Of the asks whose reply counts. An ask is called as its client; a second one ``client#2``."""
    failures: list[ClientFailure | tuple[str, Res]]
    """Of the others: an exception, or the reply whose status is not OK."""
    counts: RoundCounts
    seconds: float
    bytes_down: int
    bytes_up: int
    reason: str
    """Why the phase closed."""
    enough: bool
    """Whether as many replies count as the policy asks for."""
    error: FlmqError | None = None
    """What the sink raised, if it did: its sum is then of no use. No `AggregationError`: the
    server's own disk or memory is to blame, and the run cannot go on."""
    late: tuple[Late, ...] = ()
    """Late replies of earlier rounds that count in this one."""
    incomplete_uploads: int = 0
    """Replies that broke off on their way here and were discarded, since the phase before."""
    stray_chunks: int = 0
    """Chunks of replies that nobody waited for, since the phase before."""
