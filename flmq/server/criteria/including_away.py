"""Choose among the clients that are away too."""

from __future__ import annotations

from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion

__all__ = ["IncludingAway"]


class IncludingAway(Criterion):
    """All clients that are online or away: a task waits in its client's queue.

    With ``&``, others choose among clients that are away too: ``ByProperty(gpu=True) &
    IncludingAway()``.
    """

    include_away = True

    def select(self, client: ClientProxy) -> bool:
        """Select every client."""
        return True

    def awaited(self) -> Criterion:
        """Wait for clients that are online or away."""
        return self
