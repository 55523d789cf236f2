"""Who is there, and whom to ask: clients known by their presence, and seeded choice among them."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flmq.common.errors import FlmqError, NotEnoughClients
from flmq.common.typing import Scalar
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion

__all__ = [
    "ClientManager",
    "ClientState",
    "ClientStatus",
    "SimpleClientManager",
]

logger = logging.getLogger(__name__)

_DAY = 86400.0


class ClientManager(ABC):
    """Holds the clients that are there. Strategies get it in ``configure_fit`` and its kin."""

    @abstractmethod
    def num_available(self) -> int:
        """Return how many clients are available now."""

    @abstractmethod
    def register(self, client: ClientProxy) -> bool:
        """Add ``client``; False if its id is taken by an available client."""

    @abstractmethod
    def unregister(self, client: ClientProxy) -> None:
        """Remove ``client``; nothing happens if it is not there."""

    @abstractmethod
    def all(self) -> dict[str, ClientProxy]:
        """Return the available clients by id."""

    @abstractmethod
    def wait_for(self, num_clients: int, timeout: float) -> bool:
        """Block until ``num_clients`` are available; False after ``timeout`` seconds."""

    @abstractmethod
    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Criterion | None = None,
    ) -> list[ClientProxy]:
        """Choose ``num_clients`` of those that ``criterion`` selects.

        Blocks until ``min_num_clients`` (``num_clients`` where not given) are available. Returns
        an empty list if fewer than ``num_clients`` are to choose from.
        """


class ClientState(StrEnum):
    """Whether a client can be asked now."""

    ONLINE = "online"
    """It said hello and is heard of."""
    AWAY = "away"
    """Known, not heard of now; expected back, and a task would wait for it in its queue."""
    GONE = "gone"
    """It took its leave, or has no queue any more."""


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """Whether one client is there, since when and why."""

    cid: str
    state: ClientState
    since: float
    """When it came into this state, in seconds since the epoch."""
    reason: str
    properties: Mapping[str, Scalar]


@dataclass(slots=True)
class _Known:
    """A client that has been here at least once."""

    client: ClientProxy
    state: ClientState
    since: float
    reason: str

    def status(self) -> ClientStatus:
        properties = dict(self.client.properties)
        return ClientStatus(self.client.cid, self.state, self.since, self.reason, properties)


class SimpleClientManager(ClientManager):
    """Clients as their presence tells, and a choice among them that can be made again.

    Only online clients count, except for a criterion whose ``include_away`` is true. The choice
    depends on the seed, the round, the phase, how many choices the phase made before, and the ids
    to choose from: not on order of arrival, machine or Python version.

    All methods may be called from any thread; only ``wait_for`` and ``sample`` block.
    """

    report_every: float = 10.0
    """Seconds between two lines of log while clients are waited for."""

    def __init__(
        self,
        *,
        seed: int | None = None,
        wait_timeout: float = _DAY,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[ClientStatus], None] | None = None,
    ) -> None:
        """Know nobody yet.

        Args:
            seed: of the choices made before `begin`; None: fresh entropy.
            wait_timeout: seconds that ``sample`` waits for clients.
            clock: gives seconds since the epoch.
            on_change: called after each change, in the order of changes, one at a time, on the
                thread of one of the callers. What it raises is logged.
        """
        self.wait_timeout = wait_timeout
        self.on_change = on_change
        self.on_wait: Callable[[int, int], None] | None = None
        """Called with how many clients are waited for, and how many are here, whenever a wait
        begins or goes on; it must not block."""
        self._trouble: FlmqError | None = None
        self.shortfall: str | None = None
        """Why the last ``sample`` returned nobody; None if it did not."""
        self._clock = clock
        self._key: tuple[int, int, str] = (secrets.randbits(64) if seed is None else seed, 0, "")
        self._draws = 0
        self._known: dict[str, _Known] = {}
        self._counts: Counter[ClientState] = Counter()
        self._presence = threading.Condition()
        self._untold: deque[ClientStatus] = deque()
        self._telling = threading.Lock()

    def __len__(self) -> int:
        """Return how many clients are online."""
        return self.num_available()

    @property
    def clients(self) -> dict[str, ClientProxy]:
        """The clients that are online, by id; a copy."""
        return self.all()

    def num_available(self) -> int:
        """Return how many clients are online."""
        return self._count(include_away=False)

    def all(self) -> dict[str, ClientProxy]:
        """Return the clients that are online, by id in order of ids; a copy."""
        return self._visible(include_away=False)

    def register(self, client: ClientProxy) -> bool:
        """Take ``client`` for online; False, and no change, if its id is online already.

        A client that was away or gone is online again, with the new proxy.
        """
        with self._presence:
            known = self._known.get(client.cid)
            if known is not None and known.state is ClientState.ONLINE:
                return False
            if known is None:
                known = _Known(client, ClientState.ONLINE, self._clock(), "said hello")
                self._known[client.cid] = known
                self._changed(known)
            else:
                known.client = client
                self._move(known, ClientState.ONLINE, "came back")
        self._tell()
        return True

    def unregister(self, client: ClientProxy) -> None:
        """Take ``client`` for away."""
        self.set_away(client.cid, "unregistered")

    def set_away(self, cid: str, reason: str) -> bool:
        """Take an online client for away; whether that changed anything."""
        return self._leave(cid, ClientState.AWAY, reason, (ClientState.ONLINE,))

    def set_gone(self, cid: str, reason: str) -> bool:
        """Take an online or away client for gone; whether that changed anything."""
        return self._leave(cid, ClientState.GONE, reason, (ClientState.ONLINE, ClientState.AWAY))

    def status(self, cid: str) -> ClientStatus:
        """Return what is known of a client.

        Raises:
            KeyError: a client of this id has never been here.
        """
        with self._presence:
            return self._known[cid].status()

    def known(self) -> dict[str, ClientStatus]:
        """Return what is known of every client that has been here, by id in order of ids."""
        with self._presence:
            return {cid: self._known[cid].status() for cid in sorted(self._known)}

    def wait_for(self, num_clients: int, timeout: float = _DAY) -> bool:
        """Block until ``num_clients`` are online; False after ``timeout`` seconds."""
        return self._wait_for(num_clients, timeout, include_away=False)

    def begin(self, seed: int, server_round: int, phase: str) -> None:
        """Make the choices that follow those of this phase of this round of the job ``seed``."""
        with self._presence:
            self._key = (seed, server_round, phase)
            self._draws = 0
            self.shortfall = None

    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Criterion | None = None,
    ) -> list[ClientProxy]:
        """Choose ``num_clients`` of those that ``criterion`` selects, all equally likely.

        Blocks until ``min_num_clients`` (``num_clients`` where not given) are online, for
        ``wait_timeout`` seconds at most. Returns an empty list, and says why in ``shortfall`` and
        in the log, if fewer than ``num_clients`` are to choose from.

        Raises:
            NotEnoughClients: too few came in time; names who is known but away.
            ValueError: ``num_clients`` is negative.
        """
        if num_clients < 0:
            raise ValueError(f"num_clients is {num_clients}: choose 0 or more")
        wanted = num_clients if min_num_clients is None else min_num_clients
        include_away = bool(getattr(criterion, "include_away", False))
        self._require(wanted, include_away)
        # The user's criterion runs outside of the lock: it may ask the client, and block.
        candidates = [
            client
            for client in self._visible(include_away).values()
            if criterion is None or criterion.select(client)
        ]
        self.shortfall = _shortfall(num_clients, len(candidates), criterion)
        if self.shortfall is not None:
            logger.warning("sampling nobody: %s", self.shortfall)
            return []
        return self._choose(candidates, num_clients)

    def _choose(self, candidates: list[ClientProxy], num_clients: int) -> list[ClientProxy]:
        """The ``num_clients`` with the smallest digests of key and id.

        Digests are as good as independent uniform numbers, so every subset is equally likely. No
        generator is involved, whose algorithm could change with a version; and when one client
        is missing, the others that would have been chosen still are.
        """
        if num_clients == 0:
            return []  # whoever only waits draws nothing: the choice must not depend on it
        with self._presence:
            key = (*self._key, self._draws)
            self._draws += 1
        ranked = sorted(candidates, key=lambda client: _digest(key, client.cid))
        return ranked[:num_clients]

    def _visible(self, include_away: bool) -> dict[str, ClientProxy]:
        with self._presence:
            return {
                cid: known.client
                for cid, known in sorted(self._known.items())
                if known.state is ClientState.ONLINE
                or (include_away and known.state is ClientState.AWAY)
            }

    def _require(self, wanted: int, include_away: bool) -> None:
        """Wait for ``wanted`` clients, or raise with the names of those who are missing."""
        begun = time.monotonic()
        if self._wait_for(wanted, self.wait_timeout, include_away):
            return
        away = [cid for cid, known in self.known().items() if known.state is ClientState.AWAY]
        waited = round(time.monotonic() - begun, 3)
        raise NotEnoughClients(wanted, self._count(include_away), waited, tuple(away))

    def give_up(self, error: FlmqError) -> None:
        """Have whoever waits for clients, now or later, get ``error``: nobody hears them."""
        with self._presence:
            self._trouble = error
            self._presence.notify_all()

    def _wait_for(self, wanted: int, timeout: float, include_away: bool) -> bool:
        deadline = time.monotonic() + timeout
        with self._presence:
            while (have := self._count(include_away)) < wanted:
                if self._trouble is not None:
                    raise self._trouble
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                logger.info("waiting for clients: %d of %d are here", have, wanted)
                if self.on_wait is not None:
                    self.on_wait(wanted, have)
                self._presence.wait_for(
                    lambda: self._trouble is not None or self._count(include_away) >= wanted,
                    min(left, self.report_every),
                )
            return True

    def _count(self, include_away: bool) -> int:
        """How many clients `_visible` would give, in no time: waits ask at each change."""
        with self._presence:
            away = self._counts[ClientState.AWAY] if include_away else 0
            return self._counts[ClientState.ONLINE] + away

    def _leave(
        self, cid: str, state: ClientState, reason: str, possible: tuple[ClientState, ...]
    ) -> bool:
        with self._presence:
            known = self._known.get(cid)
            if known is None or known.state not in possible:
                return False
            self._move(known, state, reason)
        self._tell()
        return True

    def _move(self, known: _Known, state: ClientState, reason: str) -> None:
        """Take a known client from one state to another; called under the lock."""
        self._counts[known.state] -= 1
        known.state, known.since, known.reason = state, self._clock(), reason
        self._changed(known)

    def _changed(self, known: _Known) -> None:
        """Count, wake who waits, and note the change for the listener; called under the lock."""
        self._counts[known.state] += 1
        self._untold.append(known.status())
        self._presence.notify_all()

    def _tell(self) -> None:
        """Tell the listener of changes, outside of the lock, so that it may call any method.

        One thread tells at a time and tells all: others leave theirs to it, which keeps the order.
        """
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    self._tell_one(self._untold.popleft())
            finally:
                self._telling.release()

    def _tell_one(self, status: ClientStatus) -> None:
        if self.on_change is None:
            return
        try:
            self.on_change(status)
        except Exception:
            logger.exception("on_change failed for client %s: %s", status.cid, status.state)


def _digest(key: tuple[int, int, str, int], cid: str) -> bytes:
    return hashlib.sha256("\0".join(map(str, (*key, cid))).encode()).digest()


def _shortfall(num_clients: int, candidates: int, criterion: Criterion | None) -> str | None:
    """Why ``num_clients`` cannot be chosen from ``candidates``, or None."""
    if candidates >= num_clients:
        return None
    which = "available" if criterion is None else f"selected by {type(criterion).__name__}"
    return f"{num_clients} clients are to be asked and {candidates} are {which}"
