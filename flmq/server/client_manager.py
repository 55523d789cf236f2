"""The available clients: wait for them, and choose among them with a seed."""

from __future__ import annotations

import hashlib
import heapq
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from flmq.common.errors import FlmqError, NotEnoughClients
from flmq.common.logger import get_logger
from flmq.server.client_proxy import ClientProxy
from flmq.server.criteria.failures import FailureLog
from flmq.server.criteria.matching import Matching, TooFewMatch, match
from flmq.server.criterion import Criterion
from flmq.server.presence.registry import ClientRegistry, ClientState, ClientStatus

__all__ = [
    "ClientManager",
    "ClientState",
    "ClientStatus",
    "SimpleClientManager",
    "num_selected",
    "shared_registry",
]

logger = get_logger(__name__)

_DAY = 86400.0


class ClientManager(ABC):
    """The available clients. Strategies get it in ``configure_fit`` and ``configure_evaluate``."""

    @abstractmethod
    def num_available(self) -> int:
        """Return how many clients are available now."""

    @abstractmethod
    def register(self, client: ClientProxy) -> bool:
        """Add ``client``; False if its id is taken by an available client."""

    @abstractmethod
    def unregister(self, client: ClientProxy) -> None:
        """Remove ``client``; do nothing if it is not registered."""

    @abstractmethod
    def all(self) -> dict[str, ClientProxy]:
        """Return the available clients by id."""

    @abstractmethod
    def wait_for(self, num_clients: int, timeout: float) -> bool:
        """Block until ``num_clients`` are available; return False after ``timeout`` seconds."""

    @abstractmethod
    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Criterion | None = None,
    ) -> list[ClientProxy]:
        """Choose ``num_clients`` of those that ``criterion`` selects.

        Blocks until ``min_num_clients`` (default ``num_clients``) are available. Returns an empty
        list if there are fewer than ``num_clients`` to choose from.
        """


class _ChangeQueue:
    """Tells a listener of changes in their order, one at a time, with no lock held but its own."""

    def __init__(self) -> None:
        """Have nothing to tell yet."""
        self._untold: deque[ClientStatus] = deque()
        self._telling = threading.Lock()

    def put(self, status: ClientStatus) -> None:
        """Add a change, which the next `tell` tells; call it under the lock that orders changes."""
        self._untold.append(status)

    def tell(self, listener: Callable[[ClientStatus], None] | None) -> None:
        """Call ``listener`` for each change that is left; log what it raises.

        One thread tells at a time, and tells all: others leave theirs to it, as the listener does.
        """
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    status = self._untold.popleft()
                    if listener is not None:
                        self._tell_one(listener, status)
            finally:
                self._telling.release()

    def _tell_one(self, listener: Callable[[ClientStatus], None], status: ClientStatus) -> None:
        try:
            listener(status)
        except Exception:
            logger.exception("on_change failed for client %s: %s", status.cid, status.state)


class SimpleClientManager(ClientManager):
    """The clients that a registry lists, and a reproducible choice among them.

    Only online clients count, except for a criterion whose ``include_away`` is true. The choice
    depends on the seed, the round, the phase, how many choices the phase made before, and the ids
    to choose from: not on order of arrival, machine or Python version.

    All methods may be called from any thread; only ``wait_for`` and ``sample`` block.
    """

    report_every: float = 10.0
    """Seconds between log lines while waiting for clients."""

    def __init__(
        self,
        *,
        seed: int | None = None,
        wait_timeout: float = _DAY,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        on_change: Callable[[ClientStatus], None] | None = None,
    ) -> None:
        """Start without clients.

        Args:
            seed: seed of the choices made before `begin`; None for fresh entropy.
            wait_timeout: seconds that ``sample`` waits for clients.
            clock: gives seconds since the epoch.
            monotonic: gives the monotonic seconds in which waits are measured.
            on_change: called after each change, in the order of changes, one at a time, on the
                thread of one of the callers. Its exceptions are logged.
        """
        self.wait_timeout = wait_timeout
        self.on_change = on_change
        self.on_wait: Callable[[int, int], None] | None = None
        """Called with how many clients are wanted, and how many are online, whenever a wait
        begins or continues; it must not block."""
        self.shortfall: str | None = None
        """Why the last ``sample`` returned nobody; None if it returned clients."""
        self.failures = FailureLog()
        """Who failed in recent rounds; the server's loop notes it there."""
        self._trouble: FlmqError | None = None
        self._clock = clock
        self._monotonic = monotonic
        self._key: tuple[int, int, str] = (secrets.randbits(64) if seed is None else seed, 0, "")
        self._draws = 0
        self._registry = ClientRegistry()
        self._registry_lock = threading.Lock()
        """Held while reading or changing the registry, never for long."""
        self._came = threading.Condition(self._registry_lock)
        self._arrivals = 0
        self._changes = _ChangeQueue()

    def __len__(self) -> int:
        """Return how many clients are online."""
        return self.num_available()

    @property
    def clients(self) -> dict[str, ClientProxy]:
        """The clients that are online, by id; a copy."""
        return self.all()

    def num_available(self) -> int:
        """Return how many clients are online."""
        with self._registry_lock:
            return self._registry.count()

    def all(self) -> dict[str, ClientProxy]:
        """Return the clients that are online, by id in order of ids; a copy."""
        return {client.cid: client for client in self._listed(include_away=False)}

    def register(self, client: ClientProxy) -> bool:
        """List ``client`` as online; return False, and change nothing, if its id is online.

        A client that was away or gone is online again, with the new proxy.
        """
        with self._registry_lock:
            status = self._registry.register(client, self._clock())
            if status is not None:
                self._changes.put(status)
                self._arrivals += 1
                self._came.notify_all()
        self._changes.tell(self.on_change)
        return status is not None

    def unregister(self, client: ClientProxy) -> None:
        """List ``client`` as away."""
        self.set_away(client.cid, "unregistered")

    def set_away(self, cid: str, reason: str) -> bool:
        """List an online client as away; return whether that changed anything."""
        return self._unlist(cid, ClientState.AWAY, reason)

    def set_gone(self, cid: str, reason: str) -> bool:
        """List an online or away client as gone; return whether that changed anything."""
        return self._unlist(cid, ClientState.GONE, reason)

    def status(self, cid: str) -> ClientStatus:
        """Return what is known of a client.

        Raises:
            KeyError: a client of this id has never been here.
        """
        with self._registry_lock:
            known = self._registry.find(cid)
            status = None if known is None else known.status()
        if status is None:
            raise KeyError(cid)
        return status

    def known(self) -> dict[str, ClientStatus]:
        """Return what is known of every client that has been here, by id in order of ids."""
        with self._registry_lock:
            statuses = self._registry.statuses()
        return {status.cid: status for status in sorted(statuses, key=lambda status: status.cid)}

    def wait_for(self, num_clients: int, timeout: float = _DAY) -> bool:
        """Block until ``num_clients`` are online; return False after ``timeout`` seconds."""
        return self._wait_for(num_clients, timeout, include_away=False)

    def begin(self, seed: int, server_round: int, phase: str) -> None:
        """Seed the following choices for this phase of this round of the job ``seed``."""
        with self._registry_lock:
            self._key = (seed, server_round, phase)
            self._draws = 0
            self.shortfall = None
        self.failures.begin(server_round)

    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Criterion | None = None,
    ) -> list[ClientProxy]:
        """Choose ``num_clients`` of those that ``criterion`` selects, all equally likely.

        Blocks until ``min_num_clients`` (default ``num_clients``) are online, for at most
        ``wait_timeout`` seconds; if the criterion says what is `awaited`, until as many fulfil
        that. Returns an empty list, with the reason in ``shortfall`` and in the log, if there are
        fewer than ``num_clients`` to choose from.

        Raises:
            NotEnoughClients: too few came in time; names who is known but away.
            TooFewMatch: too few of those who came in time fulfil what is awaited.
            ValueError: ``num_clients`` is negative.
        """
        if num_clients < 0:
            raise ValueError(f"num_clients is {num_clients}: choose 0 or more")
        wanted = num_clients if min_num_clients is None else min_num_clients
        self._require(wanted, criterion)
        matching = self._matching(criterion)
        self.shortfall = _shortfall(num_clients, matching)
        if self.shortfall is not None:
            logger.warning("sampling nobody: %s", self.shortfall)
            return []
        if num_clients == 0:
            return []  # a caller that only waits draws nothing: the choice must not depend on it
        with self._registry_lock:
            key = (*self._key, self._draws)
            self._draws += 1
        return _choose(matching.clients, num_clients, key)

    def give_up(self, error: FlmqError) -> None:
        """Make those who wait for clients, now or later, raise ``error``: nobody hears them."""
        with self._registry_lock:
            self._trouble = error
            self._came.notify_all()

    def _listed(self, include_away: bool) -> list[ClientProxy]:
        """Return the clients that may be chosen, in order of ids."""
        with self._registry_lock:
            clients = self._registry.listed(include_away=include_away)
        return sorted(clients, key=lambda client: client.cid)

    def _matching(self, criterion: Criterion | None) -> Matching:
        """Return the clients that ``criterion`` selects, of those that it may select."""
        # The user's criterion runs outside of the lock: it may ask the client, and block.
        if isinstance(criterion, Criterion):
            criterion.learn(self.failures)
        return match(self._listed(_includes_away(criterion)), criterion)

    def _require(self, wanted: int, criterion: Criterion | None) -> None:
        """Wait for ``wanted`` clients, or raise with the names of those who are missing."""
        begun, include_away = self._monotonic(), _includes_away(criterion)
        awaited = criterion.awaited() if isinstance(criterion, Criterion) else None
        if self._wait_for(wanted, self.wait_timeout, include_away, awaited):
            return
        away = [cid for cid, status in self.known().items() if status.state is ClientState.AWAY]
        waited = round(self._monotonic() - begun, 3)
        with self._registry_lock:
            have = self._registry.count(include_away=include_away)
        if have >= wanted:
            raise TooFewMatch(wanted, self._matching(awaited), waited, tuple(away))
        raise NotEnoughClients(wanted, have, waited, tuple(away))

    def _wait_for(
        self, wanted: int, timeout: float, include_away: bool, awaited: Criterion | None = None
    ) -> bool:
        deadline = self._monotonic() + timeout
        seen = 0

        def is_over() -> bool:
            enough = self._registry.count(include_away=include_away) >= wanted
            is_news = awaited is None or self._arrivals != seen
            return (enough and is_news) or self._trouble is not None

        while True:
            with self._registry_lock:
                have = self._registry.count(include_away=include_away)
                trouble, seen = self._trouble, self._arrivals
            if have >= wanted and awaited is not None:
                have = len(self._matching(awaited).clients)
            if have >= wanted:
                return True
            if trouble is not None:
                raise trouble
            left = deadline - self._monotonic()
            if left <= 0:
                return False
            logger.info("waiting for clients: %d of %d are here", have, wanted)
            if self.on_wait is not None:
                self.on_wait(wanted, have)
            with self._registry_lock:
                self._came.wait_for(is_over, min(left, self.report_every))

    def _unlist(self, cid: str, state: ClientState, reason: str) -> bool:
        with self._registry_lock:
            status = self._registry.unlist(cid, state, reason, self._clock())
            if status is not None:
                self._changes.put(status)
        self._changes.tell(self.on_change)
        return status is not None


def shared_registry(manager: ClientManager) -> tuple[ClientRegistry, threading.Lock]:
    """Return the registry that ``manager`` is a view of, with its lock; new ones if it has none."""
    if isinstance(manager, SimpleClientManager):
        return manager._registry, manager._registry_lock
    return ClientRegistry(), threading.Lock()


def num_selected(manager: ClientManager, criterion: Criterion | None) -> int:
    """Return how many of the manager's clients ``criterion`` selects now; None: are available."""
    if criterion is None:
        return manager.num_available()
    if isinstance(manager, SimpleClientManager):
        return len(manager._matching(criterion).clients)
    return len(match(list(manager.all().values()), criterion).clients)


def _choose(
    candidates: Iterable[ClientProxy], num_clients: int, key: Sequence[int | str]
) -> list[ClientProxy]:
    """Return the ``num_clients`` with the smallest digests of key and id, smallest first.

    Digests are as good as independent uniform numbers, so every subset is equally likely. No random
    generator is involved, whose algorithm could change with a version; and when one client is
    missing, the others that would have been chosen still are.
    """
    of_key = hashlib.sha256("".join(f"{part}\0" for part in key).encode())

    def rank(client: ClientProxy) -> bytes:
        digest = of_key.copy()
        digest.update(client.cid.encode())
        return digest.digest()

    return heapq.nsmallest(num_clients, candidates, key=rank)


def _shortfall(num_clients: int, matching: Matching) -> str | None:
    """Return why ``num_clients`` cannot be chosen from those that match, or None."""
    found = len(matching.clients)
    if found >= num_clients:
        return None
    which = "available" if matching.criterion is None else f"selected by {matching.name}"
    said = f"{num_clients} clients are to be asked and {found} are {which}"
    return said + matching.others_by_reason


def _includes_away(criterion: Criterion | None) -> bool:
    return bool(getattr(criterion, "include_away", False))
