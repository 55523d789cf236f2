"""Telling a ClientManager who came and who went: on a thread of its own, for it is user code.

It may block, ask the client that it is told of, or raise: nobody who hears clients waits for it,
and no lock of ours is held meanwhile.
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
"""Seconds in one call after which a person is told, again and again."""
_PATIENCE = 5.0
"""Seconds that are left to it at the end of a run."""


class Registrar:
    """Calls one manager, in order. Thread-safe."""

    def __init__(self, manager: ClientManager, clock: Callable[[], float]) -> None:
        """Tell ``manager``, from now on; ``clock`` gives monotonic seconds."""
        self._manager = manager
        self._clock = clock
        self._calls: SimpleQueue[tuple[str, Callable[[], object]] | None] = SimpleQueue()
        self._at: tuple[str, float] | None = None
        """The call that is being made, and when it was begun or spoken of last."""
        self._thread = threading.Thread(target=self._run, name="flmq-clients", daemon=True)
        self._thread.start()

    def online(self, client: ClientProxy, then: Callable[[], None]) -> None:
        """Have it know that ``client`` is there; ``then`` is called afterwards."""
        self._put("register", client, lambda: self._manager.register(client), then)

    def away(self, client: ClientProxy, reason: str, then: Callable[[], None]) -> None:
        """Have it know that ``client`` is away; ``then`` is called afterwards."""
        manager = self._manager
        if isinstance(manager, SimpleClientManager):
            self._put("set_away", client, lambda: manager.set_away(client.cid, reason), then)
        else:
            self._put("unregister", client, lambda: manager.unregister(client), then)

    def gone(self, client: ClientProxy, reason: str) -> None:
        """Have a manager that knows the difference know that ``client`` is gone for good."""
        manager = self._manager
        if isinstance(manager, SimpleClientManager):
            self._put("set_gone", client, lambda: manager.set_gone(client.cid, reason))

    def tick(self) -> None:
        """Name a call that does not come back. Call it every second or so."""
        at = self._at
        if at is not None and self._clock() - at[1] > _STUCK_AFTER:
            self._at = at[0], self._clock()
            logger.warning(
                "%s has not come back for %.0f s: clients that come or go meanwhile are not seen "
                "by the strategy until it does",
                at[0],
                _STUCK_AFTER,
            )

    def close(self) -> None:
        """End, without waiting long for a call that does not come back. Idempotent."""
        self._calls.put(None)
        self._thread.join(_PATIENCE)
        at = self._at
        if self._thread.is_alive() and at is not None:
            logger.error("%s has not come back, and is not waited for", at[0])

    def _put(
        self,
        method: str,
        client: ClientProxy,
        call: Callable[[], object],
        then: Callable[[], None] = lambda: None,
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
            self._at = name, self._clock()
            try:
                call()
            except BaseException:  # also sys.exit(): the next client is to be told of all the same
                logger.exception("%s failed", name)
            self._at = None
