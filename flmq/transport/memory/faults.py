"""The faults currently in force in the memory broker."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Faults"]


@dataclass(slots=True)
class Faults:
    """The faults in force; set by methods of `MemoryBroker`."""

    losing_acks: bool = False
    losing_confirms: bool = False
    duplicates: int = 0
    """How many of the next messages are enqueued twice."""
    delay: float = 0.0
    """Seconds by which published messages are delayed."""
    order: random.Random | None = None
    """Draws each message's place in its queue; None to keep their order."""

    def copies(self) -> int:
        """Return how many times to enqueue the next message."""
        if self.duplicates <= 0:
            return 1
        self.duplicates -= 1
        return 2

    def place(self, ready: int) -> int | None:
        """Return the index among ``ready`` messages for the next one; None for the tail."""
        return self.order.randint(0, ready) if self.order else None
