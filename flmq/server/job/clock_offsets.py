"""How far each client's clock is from the server's, from what messages say of both.

A task that is published at T1 by the server's clock and taken at T2 by the worker's, took some time
between, so that the worker's clock is ahead by T2 - T1 at most. What is sent at T3 by the worker's
clock and is here at T4 by the server's says that it is ahead by T3 - T4 at least. Each observation
narrows the interval; two that contradict each other mean that a clock was set, and the later one
starts anew. (The bounds are those of Marzullo and Owicki, 1983, on which NTP rests as well.)
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from flmq.common.times import WorkerTimes

__all__ = ["ClockOffset", "ClockOffsets"]

_ROUNDING = 1.0
"""Milliseconds by which rounding may move the difference of two times."""
_DRIFT = 1e-4
"""How much faster one clock may run than another: quartz is within 50 parts in a million."""
_SYNCHRONIZED = 1000.0
"""Milliseconds of an interval around 0 for which the clocks are taken for synchronized."""


@dataclass(slots=True)
class ClockOffset:
    """An interval for how many milliseconds a client's clock is ahead. Pure: it has no clock."""

    low: float = -math.inf
    high: float = math.inf
    at: float = -math.inf
    """When it was observed last, in ms by the server's clock."""
    steps: int = 0
    """How often a clock was found to have been set."""

    def observe(self, at: float, *, low: float = -math.inf, high: float = math.inf) -> None:
        """Learn at ``at``, by the server's clock, that the offset is from ``low`` to ``high``."""
        low, high = low - _ROUNDING, high + _ROUNDING
        if low > high:
            # It was set between the two: what it was last is what it is.
            self.steps += 1
            self.low, self.high, self.at = low, math.inf, at
            return
        drift = _DRIFT * max(0.0, at - self.at) if math.isfinite(self.at) else 0.0
        narrowed = max(self.low - drift, low), min(self.high + drift, high)
        if narrowed[0] > narrowed[1]:
            self.steps += 1
            narrowed = low, high
        (self.low, self.high), self.at = narrowed, at

    def estimate(self) -> tuple[float, float] | None:
        """Return the offset and by how much it may be wrong, in ms; None if one bound is missing.

        Clocks that may well agree are taken to: most are synchronized, and the middle of an
        interval says more of delays than of clocks.
        """
        if math.isinf(self.low) or math.isinf(self.high):
            return None
        if self.low <= 0 <= self.high and self.high - self.low <= _SYNCHRONIZED:
            return 0.0, round(max(-self.low, self.high), 3)
        return round((self.low + self.high) / 2, 3), round((self.high - self.low) / 2, 3)


class ClockOffsets:
    """The offset of each client's clock. Thread-safe; grows with the clients that are admitted."""

    def __init__(self) -> None:
        """Know nothing of any clock."""
        self._lock = threading.Lock()
        self._offsets: dict[str, ClockOffset] = {}

    def heard(self, client_id: str, sent_ms: int, received_ms: int) -> None:
        """Learn from a message of presence: when it was sent, and when it was here."""
        if sent_ms:
            with self._lock:
                self._of(client_id).observe(received_ms, low=sent_ms - received_ms)

    def replied(
        self, client_id: str, published_ms: int | None, times: WorkerTimes | None, received_ms: int
    ) -> tuple[float, float] | None:
        """Learn from a reply; return the offset and its error in ms, or None if it is not known."""
        low, high = -math.inf, math.inf
        if times is not None and times.upload_started_ms is not None:
            low = times.upload_started_ms - received_ms
        if times is not None and times.taken_ms is not None and published_ms is not None:
            high = times.taken_ms - published_ms
        with self._lock:
            offset = self._of(client_id)
            if math.isfinite(low) or math.isfinite(high):
                offset.observe(received_ms, low=low, high=high)
            return offset.estimate()

    def _of(self, client_id: str) -> ClockOffset:
        known = self._offsets.get(client_id)
        if known is None:
            known = self._offsets[client_id] = ClockOffset()
        return known
