"""The limits on messages that are published but not confirmed, or delivered but not acked."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MAX_BYTES", "MAX_MESSAGES", "Window", "at_most", "share_of_prefetch"]

MAX_MESSAGES = 512
"""Messages; enough to keep a long-distance connection busy (measured 6-20 thousand a second)."""
MAX_BYTES = 16 * 1024 * 1024
"""Bytes; bounds the memory of a publisher that sends a model in 1 MiB chunks."""


@dataclass(slots=True)
class Window:
    """Count messages and bytes. Not thread-safe: its owner locks."""

    max_messages: int
    max_bytes: int
    messages: int = 0
    bytes: int = 0

    def is_full(self) -> bool:
        """Whether the next message must wait; a single message may be of any size."""
        return self.messages >= self.max_messages or (
            self.messages > 0 and self.bytes >= self.max_bytes
        )

    def add(self, size: int) -> None:
        """Count a message of ``size`` bytes."""
        self.messages += 1
        self.bytes += size

    def remove(self, size: int) -> None:
        """Remove a message of ``size`` bytes from the count."""
        self.messages -= 1
        self.bytes -= size


def share_of_prefetch(prefetch: int, each: int, queues: int) -> int:
    """Return how many un-acked deliveries each of a consumer's ``queues`` may have.

    RabbitMQ counts prefetch per queue, so ``prefetch`` is divided among them; but ``each`` of every
    queue are let in, at least one, for what lies behind an un-acked message must be seen.
    """
    return max(1, each, prefetch // queues)


def at_most(prefetch: int, each: int, queues: int) -> int:
    """Return how many deliveries of all ``queues`` may be handed out and un-acked."""
    return max(prefetch, each * queues)
