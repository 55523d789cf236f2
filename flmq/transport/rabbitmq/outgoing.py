"""A publisher's messages without an outcome yet: waiting ones, and sent ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from flmq.common.errors import BrokerError
from flmq.transport.base import Address, Message, PublishOutcome
from flmq.transport.retry import Backoff
from flmq.transport.window import Window

__all__ = ["Outgoing", "Pending", "Unconfirmed"]


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message whose outcome is not known yet."""

    address: Address
    message: Message
    mandatory: bool
    future: Future[PublishOutcome] = field(default_factory=Future)
    number: int = 0
    """Identifies it among the publisher's messages if the broker returns it."""
    returned: bool = False
    nacks: Backoff | None = None
    """While it waits to be sent again after a nack."""


class Pending:
    """All of a publisher's unsettled messages, in order of publishing. Thread-safe."""

    def __init__(self, window: Window) -> None:
        """Accept as many as ``window`` has room for."""
        self._window = window
        self._changed = threading.Condition()
        self._pending: dict[Outgoing, None] = {}
        self._unsent: deque[Outgoing] = deque()
        self._count = 0
        self._closing = False
        self._suspects: set[Outgoing] = set()

    def accept(self, out: Outgoing, *, wait: bool) -> bool:
        """Add a message, waiting for room if ``wait``; return False if the publisher is closing."""
        with self._changed:
            while wait and self._window.is_full() and not self._closing:
                self._changed.wait()
            if self._closing:
                return False
            self._count += 1
            out.number = self._count
            self._pending[out] = None
            self._unsent.append(out)
            self._window.add(len(out.message.body))
            return True

    def drain(self, timeout: float) -> list[Outgoing]:
        """Accept no more, and wait up to ``timeout`` seconds; return the unsettled messages."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pending, timeout)
            return list(self._pending)

    def settle(self, out: Outgoing, fate: PublishOutcome | BrokerError) -> None:
        """Resolve the message's future with its outcome, once."""
        with self._changed:
            if out not in self._pending:
                return
            del self._pending[out]
            self._suspects.discard(out)
            self._window.remove(len(out.message.body))
            self._changed.notify_all()
        if isinstance(fate, PublishOutcome):
            out.future.set_result(fate)
        else:
            out.future.set_exception(fate)

    def suspect(self, sent: Iterable[Outgoing]) -> None:
        """Make each of ``sent`` be sent alone: one of them closed the channel."""
        with self._changed:
            self._suspects.update(sent)

    def next(self, under_way: Collection[Outgoing]) -> Outgoing | None:
        """Return the message to send while ``under_way`` are unconfirmed; None if there is none."""
        with self._changed:
            while self._unsent:
                out = self._unsent[0]
                # A suspect is sent alone, so that a closed channel is certainly its fault.
                if self._suspects and under_way and self._suspects & {out, *under_way}:
                    return None
                self._unsent.popleft()
                if out in self._pending:
                    return out
        return None

    def send_again(self, outs: Iterable[Outgoing]) -> None:
        """Queue ``outs`` behind the messages that wait."""
        with self._changed:
            self._unsent.extend(outs)

    def send_all_again(self, but: Collection[Outgoing]) -> None:
        """Queue everything again, in order, except ``but``, which is held back."""
        with self._changed:
            self._unsent = deque(out for out in self._pending if out not in but)
            for out in self._pending:
                out.returned = False
                out.nacks = None

    def first_of(self, outs: Iterable[Outgoing]) -> Outgoing | None:
        """Return the first of ``outs`` that is not settled; None if all are."""
        with self._changed:
            return next((out for out in outs if out in self._pending), None)

    def to_exchange(self, exchange: str) -> list[Outgoing]:
        """Return the messages for one exchange, in order."""
        with self._changed:
            return [out for out in self._pending if out.address.exchange == exchange]


class Unconfirmed:
    """Unconfirmed messages of one channel, by delivery tag. For the connection's thread only."""

    def __init__(self) -> None:
        """Start with none, on a new channel in confirm mode."""
        self._sent: dict[int, Outgoing] = {}
        self._next_tag = 1

    @property
    def messages(self) -> Collection[Outgoing]:
        """The messages in order of sending."""
        return self._sent.values()

    def add(self, out: Outgoing) -> None:
        """Note that a message was sent: delivery tags count up."""
        self._sent[self._next_tag] = out
        self._next_tag += 1

    def take(self, tag: int, *, multiple: bool) -> list[Outgoing]:
        """Remove and return what a confirm settles: ``tag``, or all up to it (0: all)."""
        if not multiple:
            out = self._sent.pop(tag, None)
            return [] if out is None else [out]
        tags = []
        for sent in self._sent:  # in order
            if tag and sent > tag:
                break
            tags.append(sent)
        return [self._sent.pop(sent) for sent in tags]

    def returned(self, number: int | None) -> bool:
        """Note that a message was unroutable (its confirm follows); False if it is unknown."""
        for out in self._sent.values():
            if out.number == number:
                out.returned = True
                return True
        return False
