"""Show in a run's view what becomes of the links between sites, and what waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from flmq.observe.events import Note, RunEnded, RunEvent
from flmq.sites.federation import Federation
from flmq.sites.links import LinkState, LinkStatus, links_of

__all__ = ["LinkWatcher"]

_LOOK_EVERY = 2.0
"""Seconds between two looks, each of a few calls to each broker."""


class LinkWatcher:
    """Tell a run's observers when a link goes down or runs again, until the run ends.

    `start` is a source of events, for a run's options; the watcher itself is an observer.
    """

    def __init__(
        self,
        federation: Federation,
        look: Callable[[Federation], list[LinkStatus]] = links_of,
        every: float = _LOOK_EVERY,
    ) -> None:
        """Watch the links of ``federation``: ``look`` every ``every`` seconds."""
        self._federation = federation
        self._look = look
        self._every = every
        self._over = threading.Event()
        self._told: dict[tuple[str, str], LinkState] = {}

    def __call__(self, event: RunEvent) -> None:
        """Stop at the run's end."""
        if isinstance(event, RunEnded):
            self._over.set()

    def start(self, emit: Callable[[RunEvent], None]) -> None:
        """Call ``emit`` with a note for each change, from a thread of its own."""
        threading.Thread(target=self._follow, args=(emit,), name="flmq-links", daemon=True).start()

    def news(self) -> Iterator[Note]:
        """Look once, and yield a note for each link that is not as it was told of."""
        for link in self._look(self._federation):
            ends = link.source, link.target
            before = self._told.get(ends, LinkState.RUNNING)
            if link.state is not LinkState.STARTING and link.state is not before:
                self._told[ends] = link.state
                yield Note(f"link {link}")

    def _follow(self, emit: Callable[[RunEvent], None]) -> None:
        while not self._over.wait(self._every):
            for note in self.news():
                emit(note)
