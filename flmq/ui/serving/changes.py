"""Which runs have changed: one poller, however many pages look, and none while nobody does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool

__all__ = ["Changes"]

_PERIOD = 0.2
"""Seconds between two looks at the files of runs that are looked at."""
_PERIOD_OF_ALL = 0.6
"""The same, where a page looks at all runs: there may be hundreds."""
_REST = 0.6
"""Seconds that a page has at least between two changes: what it reads then costs more than to look
whether there is something. Both together are what a change takes to a page."""


@dataclass(eq=False)
class _Page:
    job: str | None
    changed: set[str] = field(default_factory=set)
    there: asyncio.Event = field(default_factory=asyncio.Event)


class Changes:
    """Tells pages of changes; belongs to one event loop."""

    def __init__(
        self, versions: Callable[[Collection[str] | None], Mapping[str, Any]], rest: float = _REST
    ) -> None:
        """Compare ``versions(jobs)``, by run, while a page looks; ``None``: of all runs.

        ``rest``: seconds between two changes that a page is told of.
        """
        self._versions = versions
        self._rest = rest
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
                    await self._pause()
        finally:
            self._pages.discard(page)

    def end(self) -> None:
        """End all streams, as the server ends."""
        self._ended.set()
        for page in self._pages:
            page.there.set()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), self._rest)

    async def _poll(self) -> None:
        known: dict[str, Any] = {}
        while self._pages and not self._ended.is_set():
            of_all = any(page.job is None for page in self._pages)
            jobs = None if of_all else {page.job for page in self._pages if page.job is not None}
            try:
                found = await run_in_threadpool(self._versions, jobs)
            except OSError:  # a folder was taken away just then: the next look tells of it
                await asyncio.sleep(_PERIOD)
                continue
            names = known.keys() | found.keys() if of_all else found.keys()
            changed = {name for name in names if known.get(name) != found.get(name)}
            for page in self._pages:
                mine = changed if page.job is None else changed & {page.job}
                if mine:
                    page.changed |= mine
                    page.there.set()
            known = {**({} if of_all else known), **found}
            await asyncio.sleep(_PERIOD_OF_ALL if of_all else _PERIOD)
