"""Which aggregators are there, and what they have: their reports, by site."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flmq.wire import AggregatorReport, OrderInHand

__all__ = ["Aggregators"]

_MISSED = 2.5
"""Reports that an aggregator may miss before it is not there; heartbeats likewise."""
_MOST = 1_000
"""Most sites to remember, whatever is reported: as many as one aggregator may cover."""
_MOST_BYTES = 64 << 20
"""Most bytes of all their reports, about; one that is too large for what is left is not kept."""


@dataclass(slots=True)
class _Heard:
    report: AggregatorReport
    at: float
    size: int


class Aggregators:
    """The aggregators that were heard. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without any; ``clock`` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: dict[str, _Heard] = {}
        self._bytes = 0

    def hear(self, report: AggregatorReport) -> None:
        """Take in what an aggregator says. A second one of its site replaces the first.

        Where there is no room for another site, those go that are not there any more.
        """
        size, now = _size(report), self._clock()
        with self._lock:
            if not self._has_room(report.site, size):
                self._forget_the_gone(now)
            if self._has_room(report.site, size):
                self._bytes += size - self._size_of(report.site)
                self._heard[report.site] = _Heard(report, now, size)

    def _has_room(self, site: str, size: int) -> bool:
        held = self._bytes - self._size_of(site)
        return held + size <= _MOST_BYTES and (site in self._heard or len(self._heard) < _MOST)

    def _size_of(self, site: str) -> int:
        return self._heard[site].size if site in self._heard else 0

    def _forget_the_gone(self, now: float) -> None:
        for site in [site for site, known in self._heard.items() if not _is_there(known, now)]:
            self._bytes -= self._heard.pop(site).size

    def heard(self, site: str) -> float | None:
        """Return when a site's aggregator was last heard, by the clock; None: never."""
        with self._lock:
            known = self._heard.get(site)
            return None if known is None else known.at

    def in_hand(self, site: str, order_id: str) -> OrderInHand | None:
        """Return what a site's aggregator has of an order, as it last said; None: nothing."""
        with self._lock:
            known = self._heard.get(site)
        orders = () if known is None else known.report.orders
        return next((each for each in orders if each.task_id == order_id), None)

    def topmost(self) -> dict[str, frozenset[str]]:
        """Return the sites of the aggregators that are there, and which sites each covers.

        One whose site another covers is left out, as it answers to that one; of two that cover
        each other, the later name is. A site that two cover belongs to the first of them.
        """
        now = self._clock()
        with self._lock:
            there = {
                site: frozenset(known.report.covers)
                for site, known in sorted(self._heard.items())
                if _is_there(known, now)
            }
        above: dict[str, list[str]] = {}
        for site, covers in there.items():
            for covered in covers - {site}:
                above.setdefault(covered, []).append(site)
        found: dict[str, frozenset[str]] = {}
        taken: set[str] = set()
        for site, covers in there.items():
            if any(other not in covers or other < site for other in above.get(site, ())):
                continue
            found[site] = covers - taken
            taken |= covers
        return found


def _is_there(known: _Heard, now: float) -> bool:
    return now - known.at <= _MISSED * known.report.report_seconds


def _size(report: AggregatorReport) -> int:
    """Return about how many bytes a report takes in memory."""
    orders = sum(300 + len(each.held) + len(each.list_digest) for each in report.orders)
    return 500 + 130 * len(report.covers) + orders
