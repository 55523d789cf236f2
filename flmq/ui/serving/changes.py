"""Which runs have changed: one poller, however many pages look, and none while nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool

__all__ = ["Changes"]

_PERIOD = 0.2
"""Seconds between two looks at the files."""


@dataclass(eq=False)
class _Page:
    job: str | None
    changed: set[str] = field(default_factory=set)
    there: asyncio.Event = field(default_factory=asyncio.Event)


class Changes:
    """Tells pages of changes; belongs to one event loop."""

    def __init__(
        self, versions: Callable[[], Mapping[str, Any]], *, period: float = _PERIOD
    ) -> None:
        """Compare ``versions()``, by run, every ``period`` seconds while a page looks."""
        self._versions = versions
        self._period = period
        self._pages: set[_Page] = set()
        self._poller: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    async def of(self, job: str | None, idle: float) -> AsyncIterator[frozenset[str] | None]:
        """Yield the runs that have changed, or None after ``idle`` seconds without a change.

        ``job``: only that run. What changes while the last yield is dealt with is yielded once.
        """
        page = _Page(job)
        self._pages.add(page)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            while not self._ended.is_set():
                try:
                    await asyncio.wait_for(page.there.wait(), idle)
                except TimeoutError:
                    yield None
                    continue
                changed, page.changed = frozenset(page.changed), set()
                page.there.clear()
                if not self._ended.is_set():
                    yield changed
        finally:
            self._pages.discard(page)

    def end(self) -> None:
        """End all streams, as the server ends."""
        self._ended.set()
        for page in self._pages:
            page.there.set()

    async def _poll(self) -> None:
        known = await run_in_threadpool(self._versions)
        while self._pages and not self._ended.is_set():
            await asyncio.sleep(self._period)
            found = await run_in_threadpool(self._versions)
            names = known.keys() | found.keys()
            changed = {name for name in names if known.get(name) != found.get(name)}
            known = found
            for page in self._pages:
                mine = changed if page.job is None else changed & {page.job}
                if mine:
                    page.changed |= mine
                    page.there.set()
