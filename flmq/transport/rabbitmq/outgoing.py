"""A publisher's messages whose fate is not known yet: which wait, and which are under way."""

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
    """A message whose fate is not known yet."""

    address: Address
    message: Message
    mandatory: bool
    future: Future[PublishOutcome] = field(default_factory=Future)
    number: int = 0
    """Tells it from the publisher's others when the broker returns it."""
    returned: bool = False
    nacks: Backoff | None = None
    """While it waits to be sent again after a nack."""


class Pending:
    """All of a publisher's messages, in the order of publishing; those to be sent. Thread-safe."""

    def __init__(self, window: Window) -> None:
        """Let in as much as ``window`` has room for."""
        self._window = window
        self._changed = threading.Condition()
        self._pending: dict[Outgoing, None] = {}
        self._unsent: deque[Outgoing] = deque()
        self._count = 0
        self._closing = False
        self._suspects: set[Outgoing] = set()

    def accept(self, out: Outgoing, *, wait: bool) -> bool:
        """Take a message in, after waiting for room if ``wait``; False: the publisher closes."""
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
        """Take no more in, and wait ``timeout`` seconds until none is left; return what is."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pending, timeout)
            return list(self._pending)

    def settle(self, out: Outgoing, fate: PublishOutcome | BrokerError) -> None:
        """Tell the message's fate to its publisher, once."""
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
        """Let each of ``sent`` travel alone: one of them closed the channel."""
        with self._changed:
            self._suspects.update(sent)

    def next(self, under_way: Collection[Outgoing]) -> Outgoing | None:
        """The message to send next while ``under_way`` are; None: there is none, or it waits."""
        with self._changed:
            while self._unsent:
                out = self._unsent[0]
                # A suspect travels alone, so that a closed channel is its own fault for certain.
                if self._suspects and under_way and self._suspects & {out, *under_way}:
                    return None
                self._unsent.popleft()
                if out in self._pending:
                    return out
        return None

    def send_again(self, outs: Iterable[Outgoing]) -> None:
        """Have ``outs`` sent after what waits already."""
        with self._changed:
            self._unsent.extend(outs)

    def send_all_again(self, but: Collection[Outgoing]) -> None:
        """Have everything sent anew, in its order, ``but`` what is held back."""
        with self._changed:
            self._unsent = deque(out for out in self._pending if out not in but)
            for out in self._pending:
                out.returned = False
                out.nacks = None

    def first_of(self, outs: Iterable[Outgoing]) -> Outgoing | None:
        """The first of ``outs`` that is not settled; None where all are."""
        with self._changed:
            return next((out for out in outs if out in self._pending), None)

    def to_exchange(self, exchange: str) -> list[Outgoing]:
        """The messages for one exchange, in their order."""
        with self._changed:
            return [out for out in self._pending if out.address.exchange == exchange]


class Unconfirmed:
    """The messages under way on one channel, by delivery tag. For the connection's thread."""

    def __init__(self) -> None:
        """Begin with none under way, on a channel that confirms."""
        self._sent: dict[int, Outgoing] = {}
        self._next_tag = 1

    @property
    def messages(self) -> Collection[Outgoing]:
        """In the order of sending."""
        return self._sent.values()

    def add(self, out: Outgoing) -> None:
        """Note that a message was sent: the channel counts."""
        self._sent[self._next_tag] = out
        self._next_tag += 1

    def take(self, tag: int, *, multiple: bool) -> list[Outgoing]:
        """Remove what a confirm for ``tag`` settles: one, or ``multiple``: all up to it; 0: all."""
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
        """Note that a message was unroutable: its confirm comes next; False: it is none of ours."""
        for out in self._sent.values():
            if out.number == number:
                out.returned = True
                return True
        return False
