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
_MOST = 10_000
"""Most sites to remember, whatever is reported."""


@dataclass(slots=True)
class _Heard:
    report: AggregatorReport
    at: float


class Aggregators:
    """The aggregators that were heard. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without any; ``clock`` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: dict[str, _Heard] = {}

    def hear(self, report: AggregatorReport) -> None:
        """Take in what an aggregator says. A second one of its site replaces the first."""
        with self._lock:
            if report.site in self._heard or len(self._heard) < _MOST:
                self._heard[report.site] = _Heard(report, self._clock())

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
                if now - known.at <= _MISSED * known.report.report_seconds
            }
        found: dict[str, frozenset[str]] = {}
        taken: set[str] = set()
        for site, covers in there.items():
            if any(
                site in others and (other not in covers or other < site)
                for other, others in there.items()
                if other != site
            ):
                continue
            found[site] = covers - taken
            taken |= covers
        return found
