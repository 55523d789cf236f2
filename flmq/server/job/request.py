"""Requests to clients and their results, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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
    """The server's own disk or memory does not suffice to add up a reply."""

    def __init__(self, client_id: str, error: Exception) -> None:
        """Name the reply's client and the cause in the message."""
        self.client_id = client_id
        super().__init__(
            f"the server cannot add up the reply of {client_id}, which is not to blame "
            f"({named_error(error)}): see to its memory and disk; where the job has a "
            "journal, start the server again to go on"
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """The client to ask, and what to ask of it."""

    client_id: str
    ins: Ins


Check = Callable[[Ins, Res], str | None]
"""Returns why a reply does not answer what was asked; None: it does."""


class Sink(Protocol):
    """Takes in accepted fit replies as they arrive, so that they need not be kept."""

    def add(self, client_id: str, res: FitRes) -> None:
        """Take in one client's reply.

        Raises:
            AggregationError: the reply cannot be taken in.
        """

    def merge(self, other: Any, /) -> None:
        """Take in everything that another one of its kind was given: a partial sum.

        Called only where ``Request.whole_replies`` is empty.

        Raises:
            AggregationError: it cannot be taken in.
        """


def accept_anything(ins: Ins, res: Res) -> str | None:
    """Accept every reply that decodes."""
    return None


@dataclass(frozen=True, slots=True)
class Request:
    """Asks that are opened together as a phase, and when the phase ends."""

    phase: Phase
    server_round: int
    asks: Sequence[Ask]
    """A client that appears twice is asked twice."""
    timeout: float | None
    """Seconds until the deadline. None: wait without limit."""
    policy: Policy = field(default_factory=lambda: Policy(min_results=0))
    check: Check = check_reply
    """Checks replies of the right type; by default, as their kind requires."""
    sink: Sink | None = None
    """Takes each accepted reply's parameters, which are then not kept. None: they are kept."""
    state: Mapping[str, StateValue] | None = None
    """The strategy's state after it chose whom to ask; puts the phase in the job's journal, if
    any. None: the phase is asked anew after a restart."""
    cast: bool = False
    """Whether float tensors of another dtype than was sent are cast to it."""
    hands_over: bool = False
    """Whether late replies may count across phases: from this one later, from earlier ones here."""
    whole_replies: str = "only the training of rounds is added up by sites"
    """Why each reply has to come by itself; empty: the ``sink`` merges sums of some of them, which
    aggregators of sites may make."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """The result of a phase, by the names of its asks, in the order of client ids."""

    replies: dict[str, Res]
    """Replies that count, by ask: named after its client, or ``client#2`` for a second ask."""
    failures: list[ClientFailure | tuple[str, Res]]
    """For each other ask: an exception, or its name and a reply whose status is not OK."""
    counts: RoundCounts
    seconds: float
    bytes_down: int
    bytes_up: int
    reason: str
    """Why the phase closed."""
    enough: bool
    """Whether as many replies count as the policy requires."""
    error: FlmqError | None = None
    """What the sink raised, which makes its sum useless. None: nothing. If not `AggregationError`,
    the server's own disk or memory is to blame, and the run cannot go on."""
    late: tuple[Late, ...] = ()
    """Late replies of earlier rounds that count in this one."""
    incomplete_uploads: int = 0
    """Number of replies discarded incomplete since the phase before."""
    stray_chunks: int = 0
    """Number of chunks of replies that were not awaited, since the phase before."""
