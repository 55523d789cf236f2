"""Hears what clients say of themselves, and tells the ClientManager who came and who went."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flmq.common.errors import FlmqError
from flmq.common.logger import logger
from flmq.observe.events import ClientPresence, RunEvent
from flmq.server.client_manager import ClientManager, SimpleClientManager, shared_registry
from flmq.server.client_proxy import ClientProxy
from flmq.server.presence.registrar import Registrar
from flmq.server.presence.registry import (
    Change,
    ClientState,
    Heard,
    HeardChange,
    PropertiesRefused,
)
from flmq.transport import DEFAULT_SITE
from flmq.wire import Presence

__all__ = ["PresenceWatcher"]


class PresenceWatcher:
    """Feeds a registry of clients with presence messages, and hands its changes to a registrar.

    Thread-safe. Works with any `ClientManager`; a `SimpleClientManager` shares its registry.
    Whether somebody is who they say is for others to find out (`flmq.server.presence.doorkeeper`).
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
        self._registry, self._registry_lock = shared_registry(manager)
        with self._registry_lock:
            self._registry.start_run()

    def recognizes(self, presence: Presence) -> bool:
        """Whether this is the process that was heard last as this client, and it had its queue."""
        with self._registry_lock:
            known = self._registry.find(presence.client_id)
            return known is not None and known.is_process(presence.instance)

    def hear(self, presence: Presence) -> None:
        """Take in a hello, a heartbeat or a bye.

        A process leaves once: whatever is heard of it after its bye was on its way before.
        """
        with self._registry_lock:
            changes = self._registry.hear(presence, self._clock(), self._make_proxy)
            self._tell(changes)
        for change in changes:
            if isinstance(change, PropertiesRefused):
                logger.warning(
                    "client %s takes part without its properties: %s",
                    change.client_id,
                    change.reason,
                )

    def seen(self, client_id: str) -> None:
        """Take any other message of the client as a sign of life, unless it has left."""
        with self._registry_lock:
            self._tell(self._registry.seen(client_id, self._clock()))

    def gone(self, client_id: str) -> None:
        """Note that the broker has no queue for a client: it took its leave, or long ago."""
        with self._registry_lock:
            self._tell(self._registry.queue_gone(client_id))

    def give_up(self, error: FlmqError) -> None:
        """Tell whoever waits for clients that nobody hears them any more, and why."""
        if isinstance(self._manager, SimpleClientManager):
            self._manager.give_up(error)

    def tick(self) -> None:
        """Find out whose heartbeats have stopped. Call it every second or so."""
        self._registrar.tick()
        with self._registry_lock:
            self._tell(self._registry.tick(self._clock()))

    def close(self) -> None:
        """Tell the manager nothing more. Idempotent."""
        self._registrar.close()

    def knows(self, client_id: str) -> bool:
        """Whether anything was heard of a client since this server began."""
        return self._heard(client_id) is not Heard.NEVER

    def is_online(self, client_id: str) -> bool:
        """Whether a client is heard of now."""
        return self._heard(client_id) is Heard.ONLINE

    def was_there(self, client_id: str, since: float) -> bool:
        """Whether a client was heard after ``since``, in monotonic seconds, and has not left."""
        with self._registry_lock:
            known = self._registry.find(client_id)
            return known is not None and known.last_heard >= since

    def site(self, client_id: str) -> str:
        """The site a client was heard from last."""
        with self._registry_lock:
            known = self._registry.find(client_id)
            return DEFAULT_SITE if known is None else known.site

    def _heard(self, client_id: str) -> Heard:
        with self._registry_lock:
            known = self._registry.find(client_id)
            return Heard.NEVER if known is None else known.heard

    def _tell(self, changes: Iterable[Change]) -> None:
        """Hand changes to the registrar; called under the lock, which keeps their order."""
        for change in changes:
            if isinstance(change, PropertiesRefused):
                continue  # that is for the log
            if change.state is ClientState.ONLINE:
                self._registrar.online(change.proxy, self._observers_told(change))
            elif change.state is ClientState.AWAY:
                self._registrar.away(change.proxy, change.reason, self._observers_told(change))
            else:
                self._registrar.gone(change.proxy, change.reason)

    def _observers_told(self, change: HeardChange) -> Callable[[], None]:
        """What tells observers, once the manager knows."""
        event = ClientPresence(change.proxy.cid, change.state.value, change.reason, change.online)
        return lambda: self._emit(event)
