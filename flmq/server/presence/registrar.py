"""Register and unregister clients with a ClientManager, on a thread of its own.

A ClientManager is user code: it may block, call the client that it is given, or raise. So the
thread that hears clients does not wait for it, and no lock is held while it is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from flmq.common.logger import logger
from flmq.server.client_manager import ClientManager, SimpleClientManager
from flmq.server.client_proxy import ClientProxy

__all__ = ["Registrar"]

_STUCK_AFTER = 30.0
"""Seconds after which a call that has not returned is reported in the log, repeatedly."""
_PATIENCE = 5.0
"""Seconds that the end of a run waits for the remaining calls."""


class Registrar:
    """Makes the calls of one ClientManager, one at a time and in order. Thread-safe."""

    def __init__(self, manager: ClientManager, clock: Callable[[], float]) -> None:
        """Start the thread that calls ``manager``; ``clock`` gives monotonic seconds."""
        self._manager = manager
        self._clock = clock
        self._calls: SimpleQueue[tuple[str, Callable[[], object]] | None] = SimpleQueue()
        self._running: tuple[str, float] | None = None
        """The current call, and when it began; None if there is none."""
        self._reported: tuple[tuple[str, float], float] | None = None
        """The call last reported as not returning, and when it was reported."""
        self._thread = threading.Thread(target=self._run, name="flmq-clients", daemon=True)
        self._thread.start()

    def online(self, client: ClientProxy, then: Callable[[], None]) -> None:
        """Register ``client``, and then call ``then``, even if that failed."""
        self._put("register", client, lambda: self._manager.register(client), then)

    def away(self, client: ClientProxy, reason: str, then: Callable[[], None]) -> None:
        """Set ``client`` away, or unregister it; then call ``then``, even if that failed."""
        manager = self._manager
        if isinstance(manager, SimpleClientManager):
            self._put("set_away", client, lambda: manager.set_away(client.cid, reason), then)
        else:
            self._put("unregister", client, lambda: manager.unregister(client), then)

    def gone(self, client: ClientProxy, reason: str, then: Callable[[], None]) -> None:
        """Set ``client`` gone, if the manager supports that; then call ``then``."""
        manager = self._manager

        def set_gone() -> None:
            if isinstance(manager, SimpleClientManager):
                manager.set_gone(client.cid, reason)

        self._put("set_gone", client, set_gone, then)

    def tick(self) -> None:
        """Report a call that does not return. Call it about every second."""
        running, now = self._running, self._clock()
        if running is None:
            return
        name, since = running
        if self._reported is not None and self._reported[0] is running:
            since = self._reported[1]
        if now - since > _STUCK_AFTER:
            self._reported = running, now
            logger.warning(
                "%s has not come back for %.0f s: clients that come or go meanwhile are not seen "
                "by the strategy until it does",
                name,
                _STUCK_AFTER,
            )

    def close(self) -> None:
        """Make the remaining calls and end, after at most 5 seconds. Idempotent."""
        self._calls.put(None)
        self._thread.join(_PATIENCE)
        running = self._running
        if self._thread.is_alive() and running is not None:
            logger.error("%s has not come back, and is not waited for", running[0])

    def _put(
        self,
        method: str,
        client: ClientProxy,
        call: Callable[[], object],
        then: Callable[[], None],
    ) -> None:
        def both() -> None:
            try:
                call()
            finally:
                then()

        self._calls.put((f"{type(self._manager).__name__}.{method}({client.cid})", both))

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            name, call = item
            self._running = name, self._clock()
            try:
                call()
            except BaseException:  # also sys.exit(): what follows is called all the same
                logger.exception("%s failed", name)
            self._running = None
