"""Believe what comes to an aggregator by the way that it came, where credentials are each one's."""

from __future__ import annotations

from flmq.messaging import Incoming
from flmq.messaging.speakers import Mismatch, Speakers, speaker_of
from flmq.region.book import OrderBook
from flmq.transport import TASKS, client_of_key, partials_queue
from flmq.wire import (
    AggregatorReport,
    BlobChunk,
    PartialSum,
    Reply,
    aggregator_name,
    task_of_upload,
)

__all__ = ["Senders"]


class Senders:
    """The check of who sent a message to the aggregator of one site."""

    def __init__(self, site: str, book: OrderBook, speakers: Speakers) -> None:
        """Check by ``speakers``; whose a reply's chunks are is in the ``book``."""
        self._partials = partials_queue(site)
        self._book = book
        self._speakers = speakers

    def problem(self, incoming: Incoming) -> str:
        """Return why a message is not believed; empty if it is."""
        if not self._speakers.required:
            return ""
        mismatch = self._mismatch(incoming)
        return "" if mismatch is None else str(mismatch)

    def _mismatch(self, incoming: Incoming) -> Mismatch | None:
        delivery, body = incoming.delivery, incoming.body
        by = self._speakers
        if delivery.queue == self._partials:
            return self._of_a_sum(incoming)
        match body:
            case Reply():
                return by.mismatch(delivery, [body.client_id])
            case BlobChunk():
                task_id = task_of_upload(body.name)
                work = self._book.of_task(task_id)
                ask = None if work is None else work.asked(task_id)
                its = speaker_of(delivery.routing_key) if ask is None else ask.client_id
                return by.mismatch(delivery, [its])
            case AggregatorReport():
                return by.mismatch(delivery, [aggregator_name(body.site)])
        if delivery.exchange == TASKS:
            return None  # servers alone may publish there
        return Mismatch("came where no server is", f"{type(body).__name__} by {delivery.exchange}")

    def _of_a_sum(self, incoming: Incoming) -> Mismatch | None:
        """Check what is under a key ``<above>.<site>.<job>``: it is that site's aggregator's."""
        delivery = incoming.delivery
        site, user = client_of_key(delivery.routing_key), delivery.message.user_id
        named = site if isinstance(incoming.body, BlobChunk) else None
        if isinstance(incoming.body, PartialSum):
            named = incoming.body.site
        if user is not None and not delivery.message.copied and named == site:
            return None
        return Mismatch(
            "are not published by the aggregator that they name",
            f"{named}, sent by {user} under {delivery.routing_key[:80]}",
        )
