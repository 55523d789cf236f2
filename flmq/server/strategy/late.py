"""How a strategy treats replies that come after their round has closed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from flmq.common.typing import FitRes
from flmq.server.client_proxy import ClientProxy

__all__ = ["LateFitRes", "LateReplies", "merged", "round_asked"]


class LateReplies(Enum):
    """What to do with a fit reply that comes after its round has closed."""

    DROP = "drop"
    """Count it, name it in the run's record, and do not use it."""
    NEXT_ROUND = "next-round"
    """Use it in the round that is open, or in the next one that opens."""


@dataclass
class LateFitRes(FitRes):
    """A fit reply among the ``results`` of a later round than the one that asked for it."""

    server_round: int = 0
    """The round that asked for it, from whose model its client trained."""


def merged(
    results: Iterable[tuple[ClientProxy, FitRes]],
    late: Iterable[tuple[ClientProxy, LateFitRes]],
) -> list[tuple[ClientProxy, FitRes]]:
    """Return a round's own and late results: by client id, a client's older ones first."""
    both: list[tuple[ClientProxy, FitRes]] = [*late, *results]
    return sorted(both, key=lambda pair: (pair[0].cid, round_asked(pair[1])))


def round_asked(res: FitRes) -> float:
    """Return the earlier round that asked for a late reply; infinity for a reply in time."""
    return res.server_round if isinstance(res, LateFitRes) else float("inf")
