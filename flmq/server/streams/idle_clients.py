"""The clients that may be asked next, as the `ClientManager` that a strategy chooses from."""

from __future__ import annotations

from collections.abc import Mapping

from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion

__all__ = ["IdleClients"]


class IdleClients(ClientManager):
    """A view of a client manager that offers some of its clients, and only so many places."""

    def __init__(
        self, manager: ClientManager, idle: Mapping[str, ClientProxy], places: int
    ) -> None:
        """Offer the ``idle`` clients of ``manager``, ``places`` of them at most."""
        self._manager = manager
        self._idle = idle
        self._places = places

    def num_available(self) -> int:
        """Return how many clients may be asked now."""
        return min(self._places, len(self._idle))

    def register(self, client: ClientProxy) -> bool:
        """Add ``client`` to the manager."""
        return self._manager.register(client)

    def unregister(self, client: ClientProxy) -> None:
        """Remove ``client`` from the manager."""
        self._manager.unregister(client)

    def all(self) -> dict[str, ClientProxy]:
        """Return the idle clients by id."""
        return dict(self._idle)

    def wait_for(self, num_clients: int, timeout: float) -> bool:
        """Block until ``num_clients`` are online, idle or not."""
        return self._manager.wait_for(num_clients, timeout)

    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Criterion | None = None,
    ) -> list[ClientProxy]:
        """Choose up to ``num_clients`` idle clients that ``criterion`` selects, by the seed.

        It does not wait for clients, unless ``min_num_clients`` says so.
        """
        idle: Criterion = _Idle(self._idle)
        both = idle if criterion is None else idle & criterion
        there = sum(both.select(client) for client in self._idle.values())
        chosen = min(num_clients, self._places, there)
        if chosen == 0 and not min_num_clients:
            return []
        return self._manager.sample(chosen, min_num_clients or 0, both)


class _Idle(Criterion):
    def __init__(self, idle: Mapping[str, ClientProxy]) -> None:
        self._idle = idle

    def select(self, client: ClientProxy) -> bool:
        return client.cid in self._idle

    def why_not(self, client: ClientProxy) -> str:
        return "at work, or resting after a failure"
