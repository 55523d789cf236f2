"""Clients that fail rest before they are asked again, ever longer while they go on failing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.errors import RunError

__all__ = ["EverybodyFails", "Rests"]

_FIRST = 1.0  # seconds
_LONGEST = 60.0  # seconds


class EverybodyFails(RunError):
    """In a run without rounds, nobody is left whose training succeeds."""

    def __init__(self, clients: int, times: int, last: str) -> None:
        """Name how many clients there are, how often each failed, and the last failure."""
        super().__init__(
            f"each of the {clients} clients that are here has failed {times} times in a row or "
            f"more; the last: {last}. See to them and start the server again, which goes on; "
            "max_failures of the strategy is how often is too often"
        )


@dataclass(slots=True)
class _Failing:
    times: int
    until: float


class Rests:
    """Who failed how often in a row, and until when each rests."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with nobody failing; ``clock`` gives monotonic seconds."""
        self._clock = clock
        self._failing: dict[str, _Failing] = {}
        self._last = ""

    def failed(self, client_id: str, why: str) -> None:
        """Note a failure: the client rests 1 s, then 2, 4, ... up to 60."""
        times = self.times(client_id) + 1
        rest = min(_LONGEST, _FIRST * 2.0 ** min(times - 1, 10))
        self._failing[client_id] = _Failing(times, self._clock() + rest)
        self._last = f"{client_id}: {why}"

    def succeeded(self, client_id: str) -> None:
        """Note a success: the client is not failing any more."""
        self._failing.pop(client_id, None)

    def times(self, client_id: str) -> int:
        """Return how often a client has failed since it last succeeded."""
        failing = self._failing.get(client_id)
        return 0 if failing is None else failing.times

    def resting(self) -> frozenset[str]:
        """Return the clients that are not to be asked yet."""
        now = self._clock()
        return frozenset(cid for cid, each in self._failing.items() if each.until > now)

    def until_next(self) -> float | None:
        """Return the seconds until the next client has rested; None if nobody rests."""
        now = self._clock()
        left = [each.until - now for each in self._failing.values() if each.until > now]
        return min(left, default=None)

    def check(self, client_ids: frozenset[str], most: int) -> None:
        """Raise `EverybodyFails` if each of these clients has failed ``most`` times in a row."""
        if client_ids and all(self.times(each) >= most for each in client_ids):
            raise EverybodyFails(len(client_ids), most, self._last)
