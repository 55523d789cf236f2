"""Take in replies: assemble them, judge them, make them durable, ack them; or pass them on.

A reply is added up before it is durable, and acked after: a kill in between loses the sum with the
process, and the reply comes again. Many are made durable together.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from flmq.common.crashpoints import crash_point
from flmq.common.logger import about, logger
from flmq.common.typing import Parameters
from flmq.messaging import Inbox, Incoming
from flmq.region.book import OrderBook
from flmq.region.judging import identity_problem, judge
from flmq.region.ledger import Ledger
from flmq.region.strays import Strays
from flmq.region.work import Held, OrderInWork, Stage
from flmq.server.replies.uploads import Spoiled, Uploaded, Uploads
from flmq.server.strategy.reply_check import spec_of
from flmq.wire import (
    BlobChunk,
    EntryOutcome,
    Failure,
    FailureKind,
    Reply,
    size_of,
    task_of_upload,
)

__all__ = ["Intake"]

_TOGETHER = 64
"""Replies to make durable with one commit, if so many wait."""


class Intake:
    """The replies that are on their way in. For one thread."""

    def __init__(
        self,
        book: OrderBook,
        ledger: Ledger,
        inbox: Inbox,
        strays: Strays,
        model_of: Callable[[OrderInWork], Parameters | None],
    ) -> None:
        """Take in what the orders in ``book`` ask for.

        ``model_of`` returns what an order's clients were sent, reading it if need be; None: it
        cannot be had.
        """
        self._book = book
        self._ledger = ledger
        self._inbox = inbox
        self._strays = strays
        self._model_of = model_of
        self.spool: Path | None = None
        if ledger.folder is not None:
            # No client's "spool", whose id is the site's name and whose --state-dir is the same.
            self.spool = ledger.folder / "arriving"
            shutil.rmtree(self.spool, ignore_errors=True)  # of a process that was killed
            self.spool.mkdir(parents=True, exist_ok=True)
        self._uploads: dict[tuple[str, int | None], Uploads] = {}
        self._waiting: list[tuple[OrderInWork, Held, Incoming]] = []

    @property
    def is_full(self) -> bool:
        """Whether so many replies wait that they must be made durable now."""
        return len(self._waiting) >= _TOGETHER

    def hear_reply(self, incoming: Incoming, reply: Reply) -> None:
        """Deal with a reply, or with the envelope of one whose parameters follow."""
        work = self._book.of_task(reply.task_id)
        if work is None:
            self._strays.keep(incoming)
            return
        if (problem := identity_problem(work, reply)) is not None:
            self._inbox.dead_letter(incoming, f"a reply of {reply.client_id} {problem}")
            return
        if work.stage is Stage.PASSED or _is_settled(reply):
            self._strays.send_on(incoming)
        elif reply.task_id in work.held:
            self._inbox.ack(incoming)  # it came twice: what is held is on its way
        elif work.stage is Stage.ANSWERED or self._model_of(work) is None:
            self._strays.send_on(incoming)
        elif not work.has_room_for(reply):
            self._pass_on(work, reply, incoming)
        elif reply.blob is None:
            self._take(work, reply, incoming.bytes, incoming)
        else:
            assert work.model is not None
            sent = size_of(work.model) or None
            upload = self._uploads_of(work).begin(reply, reply.blob, incoming.bytes, sent)
            self._arrived(work, upload, incoming)

    def hear_chunk(self, incoming: Incoming, chunk: BlobChunk) -> None:
        """Deal with a chunk of a reply."""
        task_id = task_of_upload(chunk.name)
        work = self._book.of_task(task_id)
        if work is None:
            self._strays.keep(incoming)
        elif task_id in work.held and work.stage is not Stage.PASSED:
            self._inbox.ack(incoming)
        elif (
            work.stage is not Stage.OPEN
            or task_id in work.passed_on
            or self._model_of(work) is None
        ):
            self._strays.send_on(incoming)
        else:
            uploads = self._uploads_of(work)
            if uploads.is_open(chunk.name):
                upload = uploads.add(chunk.name, chunk.index, chunk.data)
                self._arrived(work, upload, incoming)
            else:
                uploads.hold(chunk.name, chunk.index, chunk.data)
                self._inbox.ack(incoming)

    def commit(self) -> None:
        """Make durable what was taken in, then ack it.

        Raises:
            LedgerNotWritable: it cannot be; nothing is acked.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        kept = self._ledger.hold([(work, held) for work, held, _ in waiting])
        for work, held in kept:
            work.held[held.entry.task_id] = held
        for _, _, incoming in waiting:
            self._inbox.ack(incoming)
        crash_point("aggregator.acked")

    def give_up(self, task_ids: set[str]) -> None:
        """Discard what has arrived of replies that are not awaited here any more."""
        for uploads in self._uploads.values():
            uploads.discard_if(lambda task_id: task_id in task_ids)

    def close(self) -> None:
        """Give up all that is still arriving."""
        for uploads in self._uploads.values():
            uploads.close()

    def _pass_on(self, work: OrderInWork, reply: Reply, incoming: Incoming) -> None:
        if not work.passed_on:
            logger.warning(
                "the metrics of the replies are too many for one sum: that of %s and others are "
                "passed on",
                reply.client_id,
                extra=about(reply),
            )
        work.passed_on.add(reply.task_id)
        self._strays.send_on(incoming)

    # -- one reply ---------------------------------------------------------------------------

    def _arrived(
        self, work: OrderInWork, upload: Uploaded | Spoiled | None, incoming: Incoming
    ) -> None:
        match upload:
            case None:
                self._inbox.ack(incoming)
            case Uploaded(Reply() as reply, size):
                self._take(work, reply, size, incoming)
            case Spoiled(Reply() as reply, reason):
                self._take(work, reply, 0, incoming, reason)

    def _take(
        self, work: OrderInWork, reply: Reply, size: int, incoming: Incoming, spoiled: str = ""
    ) -> None:
        """Judge a complete reply, and add it up; `commit` then makes it durable."""
        uploads = self._uploads_of(work)

        def unpack(packed: Reply) -> Reply | str:
            unpacked = uploads.unpack(packed)
            return unpacked.reason if isinstance(unpacked, Spoiled) else unpacked

        if work.spec is None:
            assert work.model is not None
            work.spec = spec_of(work.model)
        held = judge(work, reply, size, spoiled, unpack=unpack, store=uploads.store)
        held = work.add(held)
        if held.entry.outcome is EntryOutcome.REJECTED:
            logger.warning(
                "the reply of %s is rejected: %s",
                reply.client_id,
                held.entry.reason,
                extra=about(reply),
            )
        self._waiting.append((work, held, incoming))

    def _uploads_of(self, work: OrderInWork) -> Uploads:
        """Return the assembly of replies with an order's codec and limit."""
        key = work.order.reply_codec, work.order.max_reply_bytes
        if key not in self._uploads:
            self._uploads[key] = Uploads(
                self.spool, key[1], codec=key[0], base_of=self._model_by_digest
            )
        return self._uploads[key]

    def _model_by_digest(self, digest: str) -> Parameters | None:
        for work in self._book:
            if work.order.model is not None and work.order.model.digest == digest:
                return work.model
        return None


def _is_settled(reply: Reply) -> bool:
    """Return whether a reply says that its client had a receipt: the server deals with it."""
    return isinstance(reply.res, Failure) and reply.res.kind is FailureKind.SETTLED
