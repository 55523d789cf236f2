"""Replies that belong to no order here: kept a moment, as it may be on its way, then passed on.

They are not acked while they wait, so that a kill loses none of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from flmq.common.logger import logger
from flmq.messaging import Incoming
from flmq.transport import REPLIES, UPLOADS, Address, Publisher, PublishOutcome
from flmq.wire import BlobChunk

__all__ = ["WAIT", "Strays"]

WAIT = 10.0
"""Seconds that a reply waits for its order."""
_SAY_EVERY = 10.0


class Strays:
    """Replies and chunks without an order. For one thread."""

    def __init__(
        self,
        publisher: Publisher,
        ack: Callable[[Incoming], None],
        clock: Callable[[], float],
        most: int,
        user_id: str | None = None,
    ) -> None:
        """Keep at most ``most`` messages waiting; ``clock`` gives seconds.

        They are passed on as ``user_id``, our own: the broker takes no client's from us.
        """
        self._publisher = publisher
        self._ack = ack
        self._clock = clock
        self._most = most
        self._user_id = user_id
        self._waiting: deque[tuple[float, Incoming]] = deque()
        self._sent = 0
        self._said = clock()

    def keep(self, incoming: Incoming) -> None:
        """Keep a message until its order comes, or its time is over."""
        self._waiting.append((self._clock() + WAIT, incoming))
        while len(self._waiting) > self._most:
            self.send_on(self._waiting.popleft()[1])

    def take_back(self) -> list[Incoming]:
        """Return all that wait, in their order, for another look: an order has come."""
        waiting, self._waiting = self._waiting, deque()
        return [incoming for _, incoming in waiting]

    def tick(self) -> None:
        """Send on what has waited long enough."""
        while self._waiting and self._waiting[0][0] <= self._clock():
            self.send_on(self._waiting.popleft()[1])
        if self._sent and self._clock() - self._said >= _SAY_EVERY:
            logger.info("%d messages that are not added up here were passed on", self._sent)
            self._sent, self._said = 0, self._clock()

    def send_on(self, incoming: Incoming) -> None:
        """Pass a message on to the server as it came, and ack it when the broker has it."""
        delivery = incoming.delivery
        exchange = UPLOADS if isinstance(incoming.body, BlobChunk) else REPLIES
        message = replace(delivery.message, user_id=self._user_id)
        self._sent += 1
        outcome = self._publisher.publish(Address(exchange, delivery.routing_key), message)

        def done(_: object) -> None:
            if outcome.exception() is not None:
                return  # closing: it is delivered again
            if outcome.result() is PublishOutcome.UNROUTABLE:
                logger.info("a reply to %s is dropped: its job is not known", delivery.routing_key)
            self._ack(incoming)

        outcome.add_done_callback(done)
