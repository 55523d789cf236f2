"""Receive the partial sums of aggregators below, whole or in chunks. For one thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flmq.common.typing import Parameters
from flmq.messaging import Inbox, Incoming
from flmq.region.below import Below, whole_of
from flmq.region.book import OrderBook
from flmq.region.work import OrderInWork, Stage
from flmq.server.replies.uploads import Spoiled, Uploaded, Uploads
from flmq.server.strategy.reply_check import spec_of
from flmq.wire import BlobChunk, PartialSum, size_of, task_of_upload

__all__ = ["Parts"]

_TIMES_MODEL = 3
"""An exact sum takes up to three times eight bytes an element, and a limit four times this."""


class Parts:
    """The partial sums that are on their way in."""

    def __init__(
        self,
        book: OrderBook,
        below: Below,
        inbox: Inbox,
        spool: Path | None,
        model_of: Callable[[OrderInWork], Parameters | None],
    ) -> None:
        """Take in partial sums of the orders in ``book`` that went on ``below``."""
        self._book = book
        self._below = below
        self._inbox = inbox
        self._model_of = model_of
        self._uploads = Uploads(spool, None)
        self._coming: dict[str, PartialSum] = {}

    def hear(self, incoming: Incoming, partial: PartialSum) -> None:
        """Deal with a partial sum, or with the envelope of one whose tensors follow."""
        work = whole_of(partial, self._book)
        if work is None:
            self._inbox.ack(incoming)  # it comes again, when its order does
            return
        if work.stage is not Stage.OPEN:
            self._below.again(partial)
            self._inbox.ack(incoming)
            return
        if (problem := self._below.problem(work, partial)) is not None:
            self._inbox.dead_letter(incoming, f"a partial sum of site {partial.site} {problem}")
            return
        model = self._model_of(work)
        if model is not None and partial.blob is not None:
            self._coming[partial.task_id] = partial
            sent = _TIMES_MODEL * size_of(model)
            upload = self._uploads.begin(partial, partial.blob, incoming.bytes, sent)
            self._arrived(work, upload)
        elif model is not None:
            self._take(work, partial)
        self._inbox.ack(incoming)

    def hear_chunk(self, incoming: Incoming, chunk: BlobChunk) -> None:
        """Deal with a chunk of a partial sum."""
        coming = self._coming.get(task_of_upload(chunk.name))
        work = None if coming is None else whole_of(coming, self._book)
        if work is not None and work.stage is Stage.OPEN:
            self._arrived(work, self._uploads.add(chunk.name, chunk.index, chunk.data))
        self._inbox.ack(incoming)

    def tick(self) -> None:
        """Give up what can count no more, as its order is answered or gone."""
        for task_id, partial in list(self._coming.items()):
            work = whole_of(partial, self._book)
            if work is None or work.stage is not Stage.OPEN:
                del self._coming[task_id]
                self._uploads.discard(task_id)

    def close(self) -> None:
        """Give up all that is still arriving."""
        self._uploads.close()

    def _arrived(self, work: OrderInWork, upload: Uploaded | Spoiled | None) -> None:
        if upload is None:
            return
        partial = upload.reply
        assert isinstance(partial, PartialSum)
        del self._coming[partial.task_id]
        if isinstance(upload, Spoiled):
            self._below.refuse(work, partial, upload.reason)
        else:
            self._take(work, partial)

    def _take(self, work: OrderInWork, partial: PartialSum) -> None:
        if work.spec is None:
            assert work.model is not None
            work.spec = spec_of(work.model)
        self._below.take(work, partial)
