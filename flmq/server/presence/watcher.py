"""Who is there: turns hellos, heartbeats and byes into what the ClientManager knows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.errors import FlmqError
from flmq.common.logger import logger
from flmq.observe.events import ClientPresence, RunEvent
from flmq.server.client_manager import ClientManager, SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.presence.registrar import Registrar
from flmq.transport import DEFAULT_SITE
from flmq.wire import Presence, PresenceKind
from flmq.wire.bounds import size_of_properties

__all__ = ["PresenceWatcher"]

_MISSED_HEARTBEATS = 2.5
_GRACE = 1.0
_ALL_PROPERTIES_BYTES = 64 * 2**20
"""Bytes of properties that are kept of all clients together."""


@dataclass(slots=True)
class _Known:
    proxy: ClientProxy
    site: str
    heartbeat: float
    """Seconds between its heartbeats."""
    last_seen: float
    """Monotonic seconds."""
    online: bool = False
    left: bool = False
    """Whether its process said bye, after which nothing of that process counts."""
    instance: str = ""
    """The process that answered for this client id last; empty: none, for its queue is gone."""
    bytes: int = 0
    """Of its properties."""


class PresenceWatcher:
    """Registers clients as they appear and unregisters those that leave or fall silent.

    Thread-safe. Works with any `ClientManager`; one that knows of away clients is told why. Whether
    somebody is who they say is for others to find out (`flmq.server.presence.doorkeeper`).
    """

    def __init__(
        self,
        manager: ClientManager,
        make_proxy: Callable[[str], ClientProxy],
        emit: Callable[[RunEvent], None],
        clock: Callable[[], float],
    ) -> None:
        """Watch for ``manager``; ``clock`` gives monotonic seconds."""
        self._manager = manager
        self._registrar = Registrar(manager, clock)
        self._make_proxy = make_proxy
        self._emit = emit
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._online = 0
        self._bytes = 0
        self._lock = threading.Lock()

    def recognizes(self, presence: Presence) -> bool:
        """Whether this is the process that was heard last as this client."""
        with self._lock:
            known = self._known.get(presence.client_id)
            return known is not None and known.instance == presence.instance

    def hear(self, presence: Presence) -> None:
        """Take in one message of a client about itself.

        A process leaves once: whatever is heard of it after its bye was on its way before. And it
        speaks of itself alone: the bye of a process that another has followed says nothing.
        """
        with self._lock:
            known = self._known.get(presence.client_id)
            same = known is not None and known.instance == presence.instance
            if known is not None and same and known.left:
                return
            if presence.kind is not PresenceKind.BYE:
                self._come(presence)
            elif known is not None and same:
                known.left = True
                self._leave(presence.client_id, "said bye")

    def seen(self, client_id: str) -> None:
        """Take any other message of the client as a sign of life, unless it has left."""
        with self._lock:
            known = self._known.get(client_id)
            if known is not None and known.instance and not known.left:
                known.last_seen = self._clock()
                self._return(client_id, known, "replied")

    def gone(self, client_id: str) -> None:
        """Note that the broker has no queue for a client: it took its leave, or long ago."""
        with self._lock:
            self._leave(client_id, "its queue is gone")
            known = self._known.get(client_id)
            if known is not None:
                known.instance = ""
                self._registrar.gone(known.proxy, "its queue is gone")

    def give_up(self, error: FlmqError) -> None:
        """Tell whoever waits for clients that nobody hears them any more, and why."""
        if isinstance(self._manager, SimpleClientManager):
            self._manager.give_up(error)

    def tick(self) -> None:
        """Find out whose heartbeats have stopped. Call it every second or so."""
        self._registrar.tick()
        with self._lock:
            now = self._clock()
            for client_id, known in self._known.items():
                silent = now - known.last_seen
                if known.online and silent > known.heartbeat * _MISSED_HEARTBEATS + _GRACE:
                    self._leave(client_id, f"no heartbeat for {silent:.0f} s")

    def close(self) -> None:
        """Tell the manager nothing more. Idempotent."""
        self._registrar.close()

    def knows(self, client_id: str) -> bool:
        """Whether anything was heard of a client since this server began."""
        with self._lock:
            return client_id in self._known

    def is_online(self, client_id: str) -> bool:
        """Whether a client is heard of."""
        with self._lock:
            known = self._known.get(client_id)
            return known is not None and known.online

    def was_there(self, client_id: str, since: float) -> bool:
        """Whether a client was heard after ``since``, in monotonic seconds, and has not left."""
        with self._lock:
            known = self._known.get(client_id)
            return known is not None and not known.left and known.last_seen >= since

    def site(self, client_id: str) -> str:
        """The site a client was last heard from."""
        with self._lock:
            known = self._known.get(client_id)
            return DEFAULT_SITE if known is None else known.site

    def _come(self, presence: Presence) -> None:
        client_id = presence.client_id
        known = self._known.get(client_id)
        if known is None:
            known = _Known(self._make_proxy(client_id), presence.site, 0.0, 0.0)
            self._known[client_id] = known
        self._keep_properties(known, presence)
        known.site = presence.site
        known.heartbeat = presence.heartbeat_seconds
        known.last_seen = self._clock()
        known.instance, known.left = presence.instance, False
        self._return(client_id, known, f"said {presence.kind.value}")

    def _keep_properties(self, known: _Known, presence: Presence) -> None:
        """Keep a client's properties, while there is room for them."""
        properties, refused = dict(presence.properties), presence.refused
        size = size_of_properties(properties.items())
        if self._bytes - known.bytes + size > _ALL_PROPERTIES_BYTES:
            properties, size = {}, 0
            refused = f"no room: properties of {self._bytes} bytes are kept of all clients"
        self._bytes += size - known.bytes
        known.proxy.properties, known.bytes = properties, size
        if refused and known.instance != presence.instance:
            logger.warning(
                "client %s takes part without its properties: %s", presence.client_id, refused
            )

    def _return(self, client_id: str, known: _Known, reason: str) -> None:
        if known.online:
            return
        known.online = True
        self._online += 1
        self._registrar.online(known.proxy, self._tell(client_id, "online", reason))

    def _leave(self, client_id: str, reason: str) -> None:
        known = self._known.get(client_id)
        if known is None or not known.online:
            return
        known.online = False
        self._online -= 1
        self._registrar.away(known.proxy, reason, self._tell(client_id, "away", reason))

    def _tell(self, client_id: str, status: str, reason: str) -> Callable[[], None]:
        """What says so to observers, once the manager knows."""
        event = ClientPresence(client_id, status, reason, self._online)
        return lambda: self._emit(event)
