"""What all parts of a job's server share: its identity, and access to clients and observers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flmq.messaging import Sender
from flmq.messaging.speakers import Speakers
from flmq.observe.events import RunEvent
from flmq.server.job.clock_offsets import ClockOffsets
from flmq.server.job_identity import Job
from flmq.server.presence.aggregators import Aggregators
from flmq.server.presence.watcher import PresenceWatcher

__all__ = ["JobContext"]


@dataclass(frozen=True, slots=True)
class JobContext:
    """One job on one transport."""

    job: Job
    sender: Sender
    presence: PresenceWatcher
    """Knows each client's site, and which clients are present."""
    emit: Callable[[RunEvent], None]
    clock: Callable[[], float] = time.monotonic
    """Seconds, monotonic."""
    wall_clock: Callable[[], float] = time.time
    """Seconds since 1970 UTC."""
    aggregators: Aggregators = field(default_factory=Aggregators)
    """Knows which sites' aggregators are present."""
    speakers: Speakers = field(default_factory=lambda: Speakers(required=False))
    """Knows who may speak for whom, where credentials are each client's own."""
    clocks: ClockOffsets = field(default_factory=ClockOffsets)
    """Knows how far clients' clocks are from ours."""

    def now_ms(self) -> int:
        """Return the time in Unix milliseconds."""
        return round(self.wall_clock() * 1000)
