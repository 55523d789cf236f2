"""What looks for news of a run beside its server, and tells the run's observers."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from flmq.observe.events import RunEnded, RunEvent

__all__ = ["Follower"]


class Follower(ABC):
    """Looks for news from a thread of its own, until the run ends.

    `start` is a source of events, for a run's options; the follower itself is an observer.
    """

    def __init__(self, thread: str, every: float) -> None:
        """Look ``every`` so many seconds, from a thread of the name ``thread``."""
        self._name = thread
        self._every = every
        self._over = threading.Event()

    @abstractmethod
    def news(self) -> Iterable[RunEvent]:
        """Look once, and return what has not been told."""

    def __call__(self, event: RunEvent) -> None:
        """Stop at the run's end."""
        if isinstance(event, RunEnded):
            self._over.set()

    def start(self, emit: Callable[[RunEvent], None]) -> None:
        """Call ``emit`` with each piece of news."""
        threading.Thread(target=self._follow, args=(emit,), name=self._name, daemon=True).start()

    def _follow(self, emit: Callable[[RunEvent], None]) -> None:
        while not self._over.wait(self._every):
            for event in self.news():
                emit(event)
