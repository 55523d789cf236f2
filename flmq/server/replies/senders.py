"""Refuse what was not sent by whom it names, where each client has credentials of its own."""

from __future__ import annotations

from flmq.messaging import Inbox, Incoming
from flmq.messaging.speakers import Mismatch, Speakers, speaker_of
from flmq.server.job.context import JobContext
from flmq.server.presence.tally import Tally
from flmq.server.replies.task_directory import TaskDirectory
from flmq.wire import (
    AggregatorReport,
    BlobChunk,
    ModelRequest,
    PartialSum,
    Presence,
    Reply,
    aggregator_name,
    task_of_upload,
)

__all__ = ["Senders"]


class Senders:
    """The check of who sent a message, for the listener's thread."""

    def __init__(self, context: JobContext, inbox: Inbox, tasks: TaskDirectory) -> None:
        """Check by the speakers of ``context``; refuse through ``inbox``."""
        self._speakers: Speakers = context.speakers
        self._inbox = inbox
        self._tasks = tasks
        name, emit = context.job.name, context.emit
        self._tally = Tally(name, "messages were refused: they", emit, context.clock)

    def refuse(self, incoming: Incoming) -> bool:
        """Return whether a message is not of whom it names; it is then counted, and gone."""
        if not self._speakers.required:
            return False
        mismatch = self._mismatch(incoming)
        if mismatch is None:
            return False
        self._tally.drop(mismatch.named, mismatch.counted)
        self._inbox.dead_letter(incoming, str(mismatch))
        return True

    def tick(self) -> None:
        """Report what was refused, once a minute. Call it about every second."""
        self._tally.tick()

    def _mismatch(self, incoming: Incoming) -> Mismatch | None:
        delivery, site = incoming.delivery, None
        ids: list[str | None]
        match incoming.body:
            case Presence() as presence:
                ids = [presence.client_id, *(each.client_id for each in presence.others)]
                site = presence.site
            case Reply(client_id=name) | ModelRequest(client_id=name):
                ids = [name]
            case PartialSum(site=name) | AggregatorReport(site=name):
                ids = [aggregator_name(name)]
            case BlobChunk() as chunk:
                ids = [self._sender_of(task_of_upload(chunk.name), delivery.routing_key)]
            case _:
                ids = [speaker_of(delivery.routing_key)]
        return self._speakers.mismatch(delivery, ids, site)

    def _sender_of(self, task_id: str, routing_key: str) -> str | None:
        """Return whose chunks are of a task; of one that is not known, whoever sends it."""
        if (asked := self._tasks.asked(task_id)) is not None:
            return asked[1]
        if (order := self._tasks.order_of(task_id)) is not None:
            return aggregator_name(order[1])
        return speaker_of(routing_key)
