"""Which clients there are, as a pure state: events in, changes out; no clock, lock, log or thread.

Two facts are kept of a client. What is *heard* of it follows its own messages, or their absence:

========  ===================  =====  =====  ===============  ============
heard     hello or heartbeat   bye    reply  heartbeats stop  no queue
========  ===================  =====  =====  ===============  ============
NEVER     ONLINE               -      -      -                -
ONLINE    ONLINE               LEFT   -      SILENT           NO_QUEUE
SILENT    ONLINE               LEFT   ONLINE -                NO_QUEUE
LEFT      ONLINE; by the same  -      -      -                NO_QUEUE
          process: -
NO_QUEUE  ONLINE               -      -      -                -
========  ===================  =====  =====  ===============  ============

A bye counts for its own process alone, and for nothing once another process of the client is heard.

How the client manager *lists* a client follows from that by way of its methods. They are user code:
they run later, on another thread, and may refuse a client or take it from the list by hand.

========  =========  =====================  ========
listed    register   set_away, unregister   set_gone
========  =========  =====================  ========
(not)     ONLINE     -                      -
ONLINE    -          AWAY                   GONE
AWAY      ONLINE     -                      GONE
GONE      ONLINE     -                      -
========  =========  =====================  ========

"-" is no change. Whoever shares a registry between threads holds one lock around each call.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from flmq.common.typing import Scalar
from flmq.server.client_proxy import ClientProxy
from flmq.transport import DEFAULT_SITE
from flmq.wire import Presence, PresenceKind
from flmq.wire.bounds import size_of_properties

__all__ = [
    "Change",
    "ClientRegistry",
    "ClientState",
    "ClientStatus",
    "Heard",
    "HeardChange",
    "KnownClient",
    "PropertiesRefused",
]

_MISSED_HEARTBEATS = 2.5
_GRACE = 1.0
"""Seconds that are allowed beyond the missed heartbeats."""
_ALL_PROPERTIES_BYTES = 64 * 2**20
"""Bytes of properties that are kept of all clients together."""


class Heard(Enum):
    """What a client's own messages, or their absence, say about it."""

    NEVER = "never"
    """It has said nothing in this run."""
    ONLINE = "online"
    SILENT = "silent"
    """Its heartbeats stopped; whatever it sends brings it back."""
    LEFT = "left"
    """Its process said bye; only another process of it comes back."""
    NO_QUEUE = "no queue"
    """The broker has no queue for it; it comes back by a hello."""


# Named here once: looking up an enumeration's member is slow on Python 3.11.
_ONLINE = Heard.ONLINE
_THERE = (Heard.ONLINE, Heard.SILENT)
_UNCONFIRMED = (Heard.NEVER, Heard.NO_QUEUE)


class ClientState(StrEnum):
    """Whether a client can be asked now, as the client manager lists it."""

    ONLINE = "online"
    """It said hello and is heard of."""
    AWAY = "away"
    """Known, not heard of now; expected back, and a task would wait for it in its queue."""
    GONE = "gone"
    """It took its leave, or has no queue any more."""


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """How one client is listed, since when and why."""

    cid: str
    state: ClientState
    since: float
    """When it came into this state, in seconds since the epoch."""
    reason: str
    properties: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class HeardChange:
    """A change in what is heard of a client, for the client manager."""

    proxy: ClientProxy
    state: ClientState
    """How it is to be listed from now on."""
    reason: str
    online: int
    """Clients that are heard of now."""
    version: str = ""
    """The client's version of flmq; empty: not known."""


@dataclass(frozen=True, slots=True)
class PropertiesRefused:
    """A process takes part without the properties that it sent."""

    client_id: str
    reason: str


Change = HeardChange | PropertiesRefused


@dataclass(slots=True)
class KnownClient:
    """All that is known about one client; only its registry changes it."""

    proxy: ClientProxy
    """What the client manager is told to list; it has the properties that were heard last."""
    client: ClientProxy
    """What the client manager lists: the proxy, or what user code made of it."""
    heard: Heard = Heard.NEVER
    site: str = DEFAULT_SITE
    instance: str = ""
    """The process that was heard last."""
    version: str = ""
    """That process's version of flmq."""
    heartbeat: float = 0.0
    """Seconds between its heartbeats."""
    last_heard: float = -math.inf
    """Monotonic seconds; -inf once it said bye."""
    properties_bytes: int = 0
    listed: ClientState | None = None
    since: float = 0.0
    """When it came to be listed so, in seconds since the epoch."""
    reason: str = ""

    @property
    def patience(self) -> float:
        """Seconds without a message after which it is silent."""
        return self.heartbeat * _MISSED_HEARTBEATS + _GRACE

    def is_process(self, instance: str) -> bool:
        """Return whether ``instance`` was heard last, and its queue not found missing since."""
        return self.instance == instance and self.heard not in _UNCONFIRMED

    def status(self) -> ClientStatus | None:
        """Return how the client is listed; None if it is not."""
        if self.listed is None:
            return None
        properties = dict(self.client.properties)
        return ClientStatus(self.client.cid, self.listed, self.since, self.reason, properties)


class ClientRegistry:
    """What is heard of each client, and how it is listed. Not thread-safe.

    A client takes memory from its first accepted hello, or registration, on: whom to believe is for
    others to find out (`flmq.server.presence.doorkeeper`).
    """

    def __init__(self) -> None:
        """Know nobody yet."""
        self._records: dict[str, KnownClient] = {}
        self._online = 0
        """Clients that are heard ONLINE."""
        self._listed: Counter[ClientState] = Counter()
        self._properties_bytes = 0
        self._next_silence = math.inf
        """Monotonic seconds before which no client can fall silent."""

    def __len__(self) -> int:
        """Return the number of clients of which anything was heard, or that were listed."""
        return len(self._records)

    def find(self, client_id: str) -> KnownClient | None:
        """Return what is known about a client; None if nothing is."""
        return self._records.get(client_id)

    # -- what is heard

    def hear(
        self, presence: Presence, now: float, make_proxy: Callable[[str], ClientProxy]
    ) -> list[Change]:
        """Handle a hello, a heartbeat or a bye at ``now``, in monotonic seconds.

        ``make_proxy`` is called with the id of a client that is heard for the first time.
        """
        record = self._records.get(presence.client_id)
        if presence.kind is PresenceKind.BYE:
            if record is None or not record.is_process(presence.instance):
                return []
            record.last_heard = -math.inf
            return self._now_heard(record, Heard.LEFT, "said bye")
        if record is None or record.heard is Heard.NEVER:
            record = self._first_heard(presence.client_id, make_proxy(presence.client_id))
        elif record.heard is Heard.LEFT and record.is_process(presence.instance):
            return []  # it was sent before the bye
        changes = [] if presence.bare else self._keep_properties(record, presence)
        record.site, record.instance = presence.site, presence.instance
        record.heartbeat, record.version = presence.heartbeat_seconds, presence.flmq_version
        return changes + self._alive(record, now, f"said {presence.kind.value}")

    def seen(self, client_id: str, now: float) -> list[Change]:
        """Treat a reply at ``now`` as a sign of life, unless the client left or has no queue."""
        record = self._records.get(client_id)
        if record is None or record.heard not in _THERE:
            return []
        return self._alive(record, now, "replied")

    def queue_gone(self, client_id: str) -> list[Change]:
        """Note that the broker has no queue for the client."""
        record = self._records.get(client_id)
        if record is None or record.heard in _UNCONFIRMED:
            return []
        reason = "its queue is gone"
        changes = self._now_heard(record, Heard.NO_QUEUE, reason)
        gone = HeardChange(record.proxy, ClientState.GONE, reason, self._online, record.version)
        return [*changes, gone]

    def tick(self, now: float) -> list[Change]:
        """Detect whose heartbeats have stopped by ``now``, in monotonic seconds.

        Goes through all clients only if one of them may have fallen silent.
        """
        if now < self._next_silence:
            return []
        changes: list[Change] = []
        self._next_silence = math.inf
        for record in self._records.values():
            if record.heard is _ONLINE:
                silent = now - record.last_heard
                if silent > record.patience:
                    reason = f"no heartbeat for {silent:.0f} s"
                    changes += self._now_heard(record, Heard.SILENT, reason)
                else:
                    self._expect(record)
        return changes

    def start_run(self) -> None:
        """Treat nobody as heard, as another run begins; listed clients stay listed."""
        for record in self._records.values():
            record.heard, record.instance, record.site = Heard.NEVER, "", DEFAULT_SITE
            record.last_heard, record.properties_bytes = -math.inf, 0
        self._online, self._properties_bytes, self._next_silence = 0, 0, math.inf

    def away(self) -> list[tuple[str, str]]:
        """Return the id and the site of each client that is known and not heard now."""
        return [
            (client_id, record.site)
            for client_id, record in self._records.items()
            if record.heard is not _ONLINE
        ]

    # -- who is listed

    def register(self, client: ClientProxy, now: float) -> ClientStatus | None:
        """List ``client`` as online from ``now`` on, in seconds since the epoch.

        None, and no change, if its id is listed as online already.
        """
        record = self._records.get(client.cid)
        if record is None:
            record = self._records[client.cid] = KnownClient(client, client)
        if record.listed is ClientState.ONLINE:
            return None
        record.client = client
        reason = "said hello" if record.listed is None else "came back"
        return self._now_listed(record, ClientState.ONLINE, reason, now)

    def unlist(
        self, client_id: str, state: ClientState, reason: str, now: float
    ) -> ClientStatus | None:
        """List a client as away or gone from ``now`` on, in seconds since the epoch.

        None, and no change, if it is not listed, is listed so already, or is gone.
        """
        record = self._records.get(client_id)
        if record is None or record.listed in (None, state, ClientState.GONE):
            return None
        return self._now_listed(record, state, reason, now)

    def count(self, *, include_away: bool = False) -> int:
        """Return how many clients `listed` would return, in constant time."""
        away = self._listed[ClientState.AWAY] if include_away else 0
        return self._listed[ClientState.ONLINE] + away

    def listed(self, *, include_away: bool = False) -> list[ClientProxy]:
        """Return the clients listed as online, or away too, in no particular order."""
        states = (ClientState.ONLINE, ClientState.AWAY) if include_away else (ClientState.ONLINE,)
        return [record.client for record in self._records.values() if record.listed in states]

    def statuses(self) -> list[ClientStatus]:
        """Return the status of each client ever listed, in no particular order."""
        statuses = (record.status() for record in self._records.values())
        return [status for status in statuses if status is not None]

    # -- changes

    def _first_heard(self, client_id: str, proxy: ClientProxy) -> KnownClient:
        record = self._records.setdefault(client_id, KnownClient(proxy, proxy))
        record.proxy = proxy
        return record

    def _alive(self, record: KnownClient, now: float, reason: str) -> list[Change]:
        record.last_heard = now
        self._expect(record)
        return self._now_heard(record, _ONLINE, reason)

    def _expect(self, record: KnownClient) -> None:
        """Look again when ``record`` may have fallen silent, or before."""
        self._next_silence = min(self._next_silence, record.last_heard + record.patience)

    def _now_heard(self, record: KnownClient, heard: Heard, reason: str) -> list[Change]:
        was_online, is_online = record.heard is _ONLINE, heard is _ONLINE
        record.heard = heard
        if was_online == is_online:
            return []
        self._online += 1 if is_online else -1
        state = ClientState.ONLINE if is_online else ClientState.AWAY
        return [HeardChange(record.proxy, state, reason, self._online, record.version)]

    def _keep_properties(self, record: KnownClient, presence: Presence) -> list[Change]:
        """Keep a client's properties while there is room; say once a process why not."""
        properties, refused = dict(presence.properties), presence.refused
        size = size_of_properties(properties.items())
        others = self._properties_bytes - record.properties_bytes
        if others + size > _ALL_PROPERTIES_BYTES:
            refused = (
                f"no room: properties of {self._properties_bytes} bytes are kept of all clients"
            )
            properties, size = {}, 0
        self._properties_bytes = others + size
        record.proxy.properties, record.properties_bytes = properties, size
        if not refused or record.is_process(presence.instance):
            return []
        return [PropertiesRefused(presence.client_id, refused)]

    def _now_listed(
        self, record: KnownClient, state: ClientState, reason: str, now: float
    ) -> ClientStatus | None:
        if record.listed is not None:
            self._listed[record.listed] -= 1
        self._listed[state] += 1
        record.listed, record.reason, record.since = state, reason, now
        return record.status()
