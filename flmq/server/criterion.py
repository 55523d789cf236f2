"""A predicate that selects the clients that a strategy may sample."""

from __future__ import annotations

from abc import ABC, abstractmethod

from flmq.server.client_proxy import ClientProxy

__all__ = ["Criterion"]


class Criterion(ABC):
    """Subclass it and pass an instance to ``ClientManager.sample``."""

    include_away: bool = False
    """Whether clients that are away may be chosen too: their task waits in their queue."""

    @abstractmethod
    def select(self, client: ClientProxy) -> bool:
        """Return whether ``client`` may be sampled."""
