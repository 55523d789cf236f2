"""What goes wrong in the memory broker at present."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Faults"]


@dataclass(slots=True)
class Faults:
    """The faults in force; see the methods of `MemoryBroker` that set them."""

    losing_acks: bool = False
    losing_confirms: bool = False
    duplicates: int = 0
    """How many of the next messages are put twice into their queues."""
    delay: float = 0.0
    """Seconds by which published messages arrive late."""
    order: random.Random | None = None
    """Draws each message's place in its queue; None: they keep their order."""

    def copies(self) -> int:
        """How often to put the next message into its queues."""
        if self.duplicates <= 0:
            return 1
        self.duplicates -= 1
        return 2

    def place(self, ready: int) -> int | None:
        """The index among ``ready`` messages to put the next one at; None: the tail."""
        return self.order.randint(0, ready) if self.order else None
