"""Process clients' presence messages, and tell the ClientManager who came and who went."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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
    """Feed presence messages to a registry of clients, and its changes to a registrar.

    Thread-safe. Works with any `ClientManager`; a `SimpleClientManager` shares its registry. It
    does not check whether clients are who they say they are: see `flmq.server.presence.doorkeeper`.
    """

    def __init__(
        self,
        manager: ClientManager,
        make_proxy: Callable[[str], ClientProxy],
        emit: Callable[[RunEvent], None],
        clock: Callable[[], float],
    ) -> None:
        """Watch clients for ``manager``; ``clock`` gives monotonic seconds."""
        self._manager = manager
        self._registrar = Registrar(manager, clock)
        self._make_proxy = make_proxy
        self._emit = emit
        self._clock = clock
        self.on_heard: Callable[[Presence], None] = lambda presence: None
        """Called with what is said of each client, before it is handled."""
        self._registry, self._registry_lock = shared_registry(manager)
        with self._registry_lock:
            self._registry.start_run()

    def recognizes(self, presence: Presence) -> bool:
        """Return whether this is the last process heard as this client, and its queue existed.

        A process stays at its site: what says otherwise is not of it.
        """
        with self._registry_lock:
            known = self._registry.find(presence.client_id)
            return (
                known is not None
                and known.is_process(presence.instance)
                and known.site == presence.site
            )

    def elsewhere(self, presence: Presence) -> str | None:
        """Return the other site at which this client is heard; None: at none."""
        with self._registry_lock:
            known = self._registry.find(presence.client_id)
            if known is None or known.heard is not Heard.ONLINE or known.site == presence.site:
                return None
            return known.site

    def hear(self, presence: Presence) -> None:
        """Handle a hello, a heartbeat or a bye.

        A process leaves once: whatever is heard of it after its bye was sent before.
        """
        self.hear_all([presence])

    def hear_all(self, presences: Sequence[Presence]) -> None:
        """Handle what came in one message; see `hear`."""
        changes: list[Change] = []
        for presence in presences:
            self.on_heard(presence)
        with self._registry_lock:
            now = self._clock()
            for presence in presences:
                changes += self._registry.hear(presence, now, self._make_proxy)
            self._tell(changes)
        for change in changes:
            if isinstance(change, PropertiesRefused):
                logger.warning(
                    "client %s takes part without its properties: %s",
                    change.client_id,
                    change.reason,
                )

    def seen(self, client_id: str) -> None:
        """Treat any other message of the client as a sign of life, unless it has left."""
        with self._registry_lock:
            self._tell(self._registry.seen(client_id, self._clock()))

    def gone(self, client_id: str) -> None:
        """Note that the broker has no queue for a client: it took its leave, or long ago."""
        with self._registry_lock:
            self._tell(self._registry.queue_gone(client_id))

    def give_up(self, error: FlmqError) -> None:
        """Tell those who wait for clients that nobody listens any more, and why."""
        if isinstance(self._manager, SimpleClientManager):
            self._manager.give_up(error)

    def tick(self) -> None:
        """Detect whose heartbeats have stopped. Call it about every second."""
        self._registrar.tick()
        with self._registry_lock:
            self._tell(self._registry.tick(self._clock()))

    def close(self) -> None:
        """Stop informing the manager. Idempotent."""
        self._registrar.close()

    def __len__(self) -> int:
        """Return the number of clients that are known, present or not."""
        with self._registry_lock:
            return len(self._registry)

    def knows(self, client_id: str) -> bool:
        """Return whether anything was heard of a client since this server began."""
        return self._heard(client_id) is not Heard.NEVER

    def is_online(self, client_id: str) -> bool:
        """Return whether a client is currently heard."""
        return self._heard(client_id) is Heard.ONLINE

    def was_there(self, client_id: str, since: float) -> bool:
        """Return whether a client was heard after ``since`` (monotonic s), and has not left."""
        with self._registry_lock:
            known = self._registry.find(client_id)
            return known is not None and known.last_heard >= since

    def process(self, client_id: str) -> str:
        """Return the instance of the process that was last heard as a client; empty: none was."""
        with self._registry_lock:
            known = self._registry.find(client_id)
            return "" if known is None else known.instance

    def site(self, client_id: str) -> str:
        """Return the site from which a client was last heard."""
        with self._registry_lock:
            known = self._registry.find(client_id)
            return DEFAULT_SITE if known is None else known.site

    def away(self) -> list[tuple[str, str]]:
        """Return the id and the site of each client that is known and not heard now."""
        with self._registry_lock:
            return self._registry.away()

    def _heard(self, client_id: str) -> Heard:
        with self._registry_lock:
            known = self._registry.find(client_id)
            return Heard.NEVER if known is None else known.heard

    def _tell(self, changes: Iterable[Change]) -> None:
        """Hand changes to the registrar; called under the lock, which keeps their order."""
        for change in changes:
            if isinstance(change, PropertiesRefused):
                continue  # only for the log
            if change.state is ClientState.ONLINE:
                self._registrar.online(change.proxy, self._observers_told(change))
            elif change.state is ClientState.AWAY:
                self._registrar.away(change.proxy, change.reason, self._observers_told(change))
            else:
                self._registrar.gone(change.proxy, change.reason, self._observers_told(change))

    def _observers_told(self, change: HeardChange) -> Callable[[], None]:
        """What tells observers, once the manager knows."""
        event = ClientPresence(
            change.proxy.cid, change.state.value, change.reason, change.online, change.version
        )
        return lambda: self._emit(event)
