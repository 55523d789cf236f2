"""Messages that a publisher has no permission to write: kept, and retried one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection

from flmq.common.errors import BrokerError
from flmq.transport.rabbitmq.connection import IOConnection
from flmq.transport.rabbitmq.outgoing import Outgoing, Pending
from flmq.transport.retry import current_pace

__all__ = ["Refusals"]


class Refusals:
    """Messages that the broker refused one publisher. For the connection's thread only."""

    def __init__(
        self, connection: IOConnection, pending: Pending, flush: Callable[[], None]
    ) -> None:
        """Keep messages of ``pending``; ``flush`` sends those that are queued."""
        self._connection = connection
        self._pending = pending
        self._flush = flush
        self._refused: dict[Outgoing, None] = {}
        self._probe: Outgoing | None = None
        """The message being tried."""
        self._waits = False

    @property
    def messages(self) -> Collection[Outgoing]:
        """The kept messages."""
        return self._refused.keys()

    def hold(self, refused: Outgoing, problem: BrokerError, *, alone: bool) -> None:
        """Keep a message for later, and, unless ``alone``, all others for its exchange."""
        self._refused[refused] = None
        if not alone:
            alike = self._pending.to_exchange(refused.address.exchange)
            self._refused.update(dict.fromkeys(alike))
        self._connection.states.hold(self, str(problem))
        if not self._waits:
            self._waits = True
            self._connection.call_later(current_pace().refused, self._try)

    def went_well(self, out: Outgoing) -> None:
        """Send the kept messages if ``out``, which was confirmed, is the one being tried."""
        if out is self._probe:
            self._probe = None
            self._connection.states.release(self)
            self._send(list(self._refused))

    def forget(self) -> None:
        """Keep nothing: the connection is lost, and everything is sent over the next one."""
        self._refused.clear()

    def _try(self) -> None:
        """Send the first of the refused messages; if that succeeds, the others follow."""
        self._waits = False
        self._probe = self._pending.first_of(self._refused)
        if self._probe is not None:
            self._send([self._probe])

    def _send(self, released: list[Outgoing]) -> None:
        for out in released:
            self._refused.pop(out, None)
        self._pending.send_again(released)
        self._flush()
