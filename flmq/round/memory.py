"""Which closed phases a job keeps in memory, and which ask of each client was the last."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from flmq.round.keys import PhaseKey, client_of

__all__ = ["PhaseMemory"]

_PHASES = 64
"""Number of closed phases kept in memory; older ones are found in the record."""
_ASKS = 50_000
"""Number of asks in memory above which closed phases are forgotten earlier."""


class PhaseMemory:
    """What a job remembers of its phases. Not thread-safe."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self._durable: deque[PhaseKey] = deque()
        """Closed phases in memory whose closing set is durable, in that order."""
        self._last_asks: dict[str, tuple[PhaseKey, str]] = {}
        self._forgotten: list[PhaseKey] = []

    def asked(self, key: PhaseKey, asks: Iterable[str]) -> None:
        """Note that a phase has these asks."""
        for ask in asks:
            client_id = client_of(ask)
            known = self._last_asks.get(client_id)
            if known is None or known[0] != key:
                self._last_asks[client_id] = key, ask

    def last_ask(self, client_id: str) -> tuple[PhaseKey, str] | None:
        """Return the phase that asked a client last, and its first ask there; None: never."""
        return self._last_asks.get(client_id)

    def closed(self, key: PhaseKey) -> None:
        """Note that a phase's closing set is durable."""
        self._durable.append(key)

    def next_to_forget(self, num_asks: int) -> PhaseKey | None:
        """Return a phase to forget now, with ``num_asks`` in memory, the oldest; None: keep all.

        The last one that closed is always kept.
        """
        many = len(self._durable) > _PHASES or num_asks > _ASKS
        if not many or len(self._durable) < 2:
            return None
        self._forgotten.append(self._durable[0])
        return self._durable.popleft()

    def forgotten(self) -> list[PhaseKey]:
        """Return the phases that were forgotten since this was last called."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten
