"""Limit how many messages are dead-lettered: a sample of a flood, and whose the others were."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.cleaning import one_line
from flmq.common.logger import logger
from flmq.transport import Delivery

__all__ = ["DeadLetterLimit", "sender_of"]

_AT_ONCE, _A_SECOND = 100, 10.0
_AT_ONCE_EACH, _A_SECOND_EACH = 50, 5.0
"""Of one sender: what others send in error is laid aside though one floods."""
_SENDERS = 1000
"""Most senders that are told apart at a time."""
_NAMED = 3
"""Most senders that a line names."""
_LONGEST_NAME = 120
_SAY_EVERY = 10.0


@dataclass(slots=True)
class _Allowance:
    at_once: float
    a_second: float
    left: float
    refilled: float

    def refill(self, now: float) -> bool:
        """Return whether there is one left at ``now``."""
        self.left = min(self.at_once, self.left + (now - self.refilled) * self.a_second)
        self.refilled = now
        return self.left >= 1


class DeadLetterLimit:
    """Send at most 100 at once and 10 a second to ``flmq.dead``, of one sender half; count others.

    Each costs a publication and its confirm, and stays in a queue: a sender of garbage in thousands
    would otherwise delay everything else, and fill the broker's disk. Not thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with the full allowance; ``clock`` gives seconds."""
        self._clock = clock
        self._said = clock()
        self._all = _Allowance(_AT_ONCE, _A_SECOND, _AT_ONCE, clock())
        self._each: OrderedDict[str, _Allowance] = OrderedDict()
        """By sender, the one that was heard last at the end."""
        self._dropped: Counter[str] = Counter()
        """By sender, since the last line."""
        self._last = ("", "")
        self.dropped = 0
        """Number of messages dropped so far."""

    def admits(self, sender: str, queue: str, reason: str) -> bool:
        """Return whether one more may be dead-lettered; if not, count it as dropped."""
        now = self._clock()
        allowed, own = self._all, self._of(sender, now)
        if allowed.refill(now) & own.refill(now):
            allowed.left -= 1
            own.left -= 1
            return True
        is_told_apart = sender in self._dropped or len(self._dropped) < _SENDERS
        self._dropped[sender if is_told_apart else ""] += 1
        self.dropped += 1
        self._last = queue, reason
        return False

    def say(self) -> None:
        """Log how many were dropped, and of whom, one line every ten seconds."""
        if not self._dropped or self._clock() - self._said < _SAY_EVERY:
            return
        queue, reason = self._last
        most = self._dropped.most_common(_NAMED)
        logger.warning(
            "%d more messages that nobody can use came faster than flmq.dead takes them and were "
            "dropped (%s%s); the last, from %s: %s",
            self._dropped.total(),
            ", ".join(f"{count} of {sender or 'others'}" for sender, count in most),
            ", ..." if len(self._dropped) > _NAMED else "",
            queue,
            reason,
        )
        self._dropped, self._said = Counter(), self._clock()

    def _of(self, sender: str, now: float) -> _Allowance:
        own = self._each.setdefault(
            sender, _Allowance(_AT_ONCE_EACH, _A_SECOND_EACH, _AT_ONCE_EACH, now)
        )
        self._each.move_to_end(sender)
        if len(self._each) > _SENDERS:
            self._each.popitem(last=False)
        return own


def sender_of(delivery: Delivery) -> str:
    """Return who sent a message, as far as the broker knows: its user, or its routing key."""
    user = delivery.message.user_id
    named = f"user {user}" if user else f"key {delivery.routing_key or delivery.queue}"
    return one_line(named, _LONGEST_NAME)
