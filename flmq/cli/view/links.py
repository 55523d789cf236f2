"""Show in a run's view what becomes of the links between sites, and what waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flmq.cli.following import Follower
from flmq.observe.events import Note
from flmq.sites.federation import Federation
from flmq.sites.links import LinkState, LinkStatus, links_of

__all__ = ["LinkWatcher"]

_LOOK_EVERY = 2.0
"""Seconds between two looks, each of a few calls to each broker."""


class LinkWatcher(Follower):
    """Tell a run's observers when a link goes down or runs again, until the run ends."""

    def __init__(
        self,
        federation: Federation,
        look: Callable[[Federation], list[LinkStatus]] = links_of,
        every: float = _LOOK_EVERY,
    ) -> None:
        """Watch the links of ``federation``: ``look`` every ``every`` seconds."""
        super().__init__("flmq-links", every)
        self._federation = federation
        self._look = look
        self._told: dict[tuple[str, str], LinkState] = {}

    def news(self) -> Iterator[Note]:
        """Look once, and yield a note for each link that is not as it was told of."""
        for link in self._look(self._federation):
            ends = link.source, link.target
            before = self._told.get(ends, LinkState.RUNNING)
            if link.state is not LinkState.STARTING and link.state is not before:
                self._told[ends] = link.state
                yield Note(f"link {link}")
