"""What an aggregator does with each message that comes, and as time passes. For one thread."""

from __future__ import annotations

from flmq.common.errors import BrokerError, RunError, StoredDataError
from flmq.common.failure_text import named_error
from flmq.common.logger import logger, logging_about
from flmq.messaging import Inbox, Incoming
from flmq.region.below import Below
from flmq.region.intake import Intake
from flmq.region.orders import Orders
from flmq.region.parts import Parts
from flmq.region.strays import Strays
from flmq.transport import partials_queue
from flmq.wire import (
    AggregateOrder,
    AggregatorReport,
    BlobChunk,
    JobEnded,
    PartialSum,
    Receipt,
    Reply,
    RollCall,
    SendPartial,
)

__all__ = ["Desk"]

_IDLE = 0.2
"""Seconds to wait for a message when there is no other work."""
_AT_ONCE = 256
"""Messages to take before looking at the time: most are chunks of up to 1 MiB."""


class Desk:
    """Takes every message of an aggregator's queues."""

    def __init__(
        self,
        site: str,
        inbox: Inbox,
        orders: Orders,
        intake: Intake,
        parts: Parts,
        below: Below,
        strays: Strays,
    ) -> None:
        """Deal with what comes to ``inbox``."""
        self._partials = partials_queue(site)
        self._inbox = inbox
        self._orders = orders
        self._intake = intake
        self._parts = parts
        self._below = below
        self._strays = strays
        self.roll_called = False
        """Whether somebody called the roll since this was last unset."""

    def turn(self) -> None:
        """Take what has come, make it durable, answer what is due. Blocks a moment if nothing has.

        Raises:
            LedgerNotWritable: the folder cannot be written.
            TransportClosed: the transport was closed.
        """
        incoming, taken = self._inbox.receive(_IDLE), 0
        while incoming is not None:
            with logging_about(incoming.body):
                self._hear_safely(incoming)
            taken += 1
            if self._intake.is_full or taken >= _AT_ONCE:
                break
            incoming = self._inbox.receive(0.0)
        self._intake.commit()
        self._orders.tick()
        self._parts.tick()
        self._strays.tick()

    def _hear_safely(self, incoming: Incoming) -> None:
        try:
            self._hear(incoming)
        except (BrokerError, RunError, StoredDataError, OSError):
            raise  # our own trouble: the message is not to blame
        except Exception as error:
            logger.exception("a message could not be dealt with")
            self._inbox.dead_letter(incoming, named_error(error))

    def _hear(self, incoming: Incoming) -> None:
        match incoming.body:
            case BlobChunk() as chunk if incoming.delivery.queue == self._partials:
                self._parts.hear_chunk(incoming, chunk)
            case BlobChunk() as chunk:
                self._intake.hear_chunk(incoming, chunk)
            case Reply() as reply:
                self._intake.hear_reply(incoming, reply)
            case PartialSum() as partial:
                self._intake.commit()
                self._parts.hear(incoming, partial)
            case _:
                self._intake.commit()  # what comes next may end what was taken in
                self._hear_word(incoming)

    def _hear_word(self, incoming: Incoming) -> None:
        """Deal with what says what to do, which is small."""
        problem = ""
        match incoming.body:
            case AggregateOrder() as order:
                problem = self._orders.take(order)
            case SendPartial() as wanted:
                self._orders.send_now(wanted)
            case Receipt() as receipt:
                self._orders.settle(receipt)
            case JobEnded() as ended:
                self._orders.end(ended)
            case AggregatorReport() as report:
                if self._below.hear(report):
                    self._orders.heard_below()
            case RollCall():
                self.roll_called = True
            case other:
                problem = f"an aggregator takes no {type(other).__name__}"
        if problem:
            self._inbox.dead_letter(incoming, problem)
            return
        self._inbox.ack(incoming)
        if isinstance(incoming.body, AggregateOrder):
            for stray in self._strays.take_back():
                self._hear_safely(stray)
