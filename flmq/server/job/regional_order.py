"""An order to the aggregator of a site, as its phase sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flmq.round import PhaseKey
from flmq.server.job_identity import Job
from flmq.wire import Asked, aggregator_name

__all__ = ["RegionalOrder", "order_id_of"]

_LISTS_KEPT = 8
"""Lists of asks of one order whose reports are still understood."""


@dataclass(slots=True)
class RegionalOrder:
    """The asks whose replies a site's aggregator adds up. Guarded by the reply loop's lock."""

    site: str
    """The aggregator's."""
    order_id: str
    covers: frozenset[str]
    """Sites whose clients' replies it takes."""
    asks: Mapping[str, str]
    """Names of all the asks put under it, by task id."""
    heard: float
    """When its aggregator was last heard, or was first waited for; in monotonic seconds."""
    published: float | None = None
    """When it was last published. None: not by this server."""
    listed: frozenset[str] = frozenset()
    """Names of the asks that it was last published with."""
    lists: dict[bytes, tuple[Asked, ...]] = field(default_factory=dict)
    """The lists that it was published with, by their digest."""
    received: int = 0
    """Bytes of its partial sum that were here when it was last seen to."""
    held: frozenset[str] = frozenset()
    """Names of the asks whose replies its aggregator had when it was last seen to."""
    held_since: float | None = None
    """Since when its aggregator has all replies, and nothing came of its sum; monotonic seconds."""
    is_wanted: bool = False
    """Whether its aggregator was told to send what it has."""
    is_taken: bool = False
    """Whether its partial sum counts."""
    refused: str = ""
    """Why its site's clients are to be asked directly; empty: they are not."""
    is_direct: bool = False
    """Whether they were."""

    @property
    def is_open(self) -> bool:
        """Whether its partial sum is still waited for."""
        return not (self.is_taken or self.refused)

    def keep_list(self, digest: bytes, asks: tuple[Asked, ...]) -> None:
        """Remember a list that it was published with."""
        self.lists[digest] = asks
        while len(self.lists) > _LISTS_KEPT:
            del self.lists[next(iter(self.lists))]


def order_id_of(job: Job, key: PhaseKey, site: str) -> str:
    """Return the id of a phase's order to the aggregator of a site: the same for every server."""
    return job.task_id(key.server_round, key.phase, aggregator_name(site), key.call)
