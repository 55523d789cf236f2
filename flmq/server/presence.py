"""Who is there: turns hellos, heartbeats and byes into what the ClientManager knows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.errors import FlmqError
from flmq.server.client_manager import ClientManager, SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.events import ClientPresence, RunEvent
from flmq.transport import DEFAULT_SITE
from flmq.wire import Presence, PresenceKind

__all__ = ["PresenceWatcher"]

_MISSED_HEARTBEATS = 2.5
_GRACE = 1.0


@dataclass(slots=True)
class _Known:
    proxy: ClientProxy
    site: str
    heartbeat: float
    """Seconds between its heartbeats."""
    last_seen: float
    """Monotonic seconds."""
    online: bool = True
    left: bool = False
    """Whether the last that it said was bye."""
    instance: str = ""
    """The process that was heard last under this client id."""


class PresenceWatcher:
    """Registers clients as they appear and unregisters those that leave or fall silent.

    Thread-safe. Works with any `ClientManager`; one that knows of away clients is told why.
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
        self._make_proxy = make_proxy
        self._emit = emit
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._online = 0
        self._lock = threading.Lock()

    def is_new(self, presence: Presence) -> bool:
        """Whether this is the first that is heard of a client's process."""
        with self._lock:
            known = self._known.get(presence.client_id)
            new = known is None or known.instance != presence.instance
            return new and presence.kind is not PresenceKind.BYE

    def hear(self, presence: Presence) -> None:
        """Take in one message of a client about itself."""
        with self._lock:
            if presence.kind is PresenceKind.BYE:
                if (known := self._known.get(presence.client_id)) is not None:
                    known.left = True
                self._leave(presence.client_id, "said bye")
            else:
                self._come(presence)

    def seen(self, client_id: str) -> None:
        """Take any other message of the client as a sign of life."""
        with self._lock:
            known = self._known.get(client_id)
            if known is not None:
                known.last_seen = self._clock()
                self._return(client_id, known, "replied")

    def gone(self, client_id: str) -> None:
        """Note that the broker has no queue for a client: it took its leave, or long ago."""
        with self._lock:
            self._leave(client_id, "its queue is gone")
            if isinstance(self._manager, SimpleClientManager):
                self._manager.set_gone(client_id, "its queue is gone")

    def give_up(self, error: FlmqError) -> None:
        """Tell whoever waits for clients that nobody hears them any more, and why."""
        if isinstance(self._manager, SimpleClientManager):
            self._manager.give_up(error)

    def tick(self) -> None:
        """Find out whose heartbeats have stopped. Call it every second or so."""
        with self._lock:
            now = self._clock()
            for client_id, known in self._known.items():
                silent = now - known.last_seen
                if known.online and silent > known.heartbeat * _MISSED_HEARTBEATS + _GRACE:
                    self._leave(client_id, f"no heartbeat for {silent:.0f} s")

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
            known = _Known(self._make_proxy(client_id), presence.site, 0.0, 0.0, online=False)
            self._known[client_id] = known
        known.proxy.properties = dict(presence.properties)
        known.site = presence.site
        known.heartbeat = presence.heartbeat_seconds
        known.last_seen = self._clock()
        known.instance = presence.instance
        self._return(client_id, known, f"said {presence.kind.value}")

    def _return(self, client_id: str, known: _Known, reason: str) -> None:
        if known.online:
            return
        known.online, known.left = True, False
        self._online += 1
        self._manager.register(known.proxy)
        self._tell(client_id, "online", reason)

    def _leave(self, client_id: str, reason: str) -> None:
        known = self._known.get(client_id)
        if known is None or not known.online:
            return
        known.online = False
        self._online -= 1
        if isinstance(self._manager, SimpleClientManager):
            self._manager.set_away(client_id, reason)
        else:
            self._manager.unregister(known.proxy)
        self._tell(client_id, "away", reason)

    def _tell(self, client_id: str, status: str, reason: str) -> None:
        self._emit(ClientPresence(client_id, status, reason, self._online))
