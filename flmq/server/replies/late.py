"""Late replies as the server handles them, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.typing import FitRes
from flmq.journal.records import PhaseKey
from flmq.round import LateReplyRef, Outcome
from flmq.server.strategy.late import LateFitRes
from flmq.server.strategy.reply_check import ParametersSpec
from flmq.wire import Reply

__all__ = ["EXPIRED", "Late", "LateReplyPolicy", "Verdict", "late_of"]


EXPIRED = "expired"
"""How the note of a reply begins that says that its client came to the task too late."""


@dataclass(frozen=True, slots=True)
class LateReplyPolicy:
    """That late replies of a run count in later rounds, and how."""

    until: int
    """The last round: what comes late to it has none to count in."""
    check: Callable[[ParametersSpec, FitRes], str | None]
    """Why a reply is not one to what was sent, or None."""


@dataclass(frozen=True, slots=True)
class Late:
    """A late reply that counts in a later round."""

    carried: LateReplyRef
    res: LateFitRes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply that does not settle its task is."""

    outcome: Outcome
    """LATE or DUPLICATE."""
    seconds: float
    """How long after its phase closed; 0: it is open, or long forgotten."""
    key: PhaseKey | None
    """Its phase in the journal; None: it has no place there."""
    note: str = ""
    """What else there is to say of it."""
    kept: bool = False
    """Whether it is to count in a later round."""


def late_of(reply: Reply) -> Late:
    """The reply as a later round counts it."""
    res = reply.res
    assert isinstance(res, FitRes)
    return Late(
        LateReplyRef(reply.client_id, reply.server_round, reply.task_id),
        LateFitRes(res.status, res.parameters, res.num_examples, res.metrics, reply.server_round),
    )
