"""Decide which replies arriving in chunks to wait for, and how long.

For the listener's thread only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from flmq.common.parameter import parameters_of
from flmq.messaging import Incoming
from flmq.round.fates import WANTED
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.server.replies.uploads import Spoiled, Uploaded, Uploads
from flmq.wire import BlobChunk, PartialSum, Reply, size_of, task_of_upload

__all__ = ["Uploading"]

_SILENCE = 60.0
"""Seconds without a chunk after which a late reply that could count is given up."""
_REMEMBERED = 1000
"""Number of given-up replies to remember, to tell clients that go on sending them."""


class Uploading:
    """The replies of a job that are still arriving."""

    def __init__(
        self,
        loop: ReplyLoop,
        uploads: Uploads,
        ack: Callable[[Incoming], None],
        clock: Callable[[], float],
    ) -> None:
        """Collect replies in ``uploads``, and hand them to ``loop`` when they are complete."""
        self._loop = loop
        self._uploads = uploads
        self._ack = ack
        self._clock = clock
        self._announced: dict[str, tuple[Reply, float]] = {}
        """By task id: the reply, and when it was last heard of, in the clock's seconds."""
        self._given_up: OrderedDict[str, Reply] = OrderedDict()

    def is_wanted(self, reply: Reply) -> bool:
        """Return whether this reply, once complete, may settle its task or count later."""
        return self._loop.tasks.fate_of(reply) in WANTED

    def begin(self, reply: Reply, incoming: Incoming) -> None:
        """Expect the chunks of a reply whose envelope has arrived."""
        assert reply.blob is not None
        self._announced[reply.task_id] = reply, self._clock()
        self._given_up.pop(reply.task_id, None)
        sent = self._sent_to(reply)
        upload = self._uploads.begin(reply, reply.blob, incoming.bytes, sent)
        self._take(reply.task_id, upload, incoming)

    def begin_sum(self, partial: PartialSum, at_most: int | None, incoming: Incoming) -> None:
        """Expect the chunks of a partial sum of ``at_most`` bytes; None: its phase is not open."""
        assert partial.blob is not None
        upload = self._uploads.begin(partial, partial.blob, incoming.bytes, at_most=at_most)
        self._take(partial.task_id, upload, incoming)

    def hear_chunk(self, chunk: BlobChunk, incoming: Incoming) -> None:
        """Take in a chunk."""
        task_id = task_of_upload(chunk.name)
        announced = self._announced.get(task_id)
        if announced is not None:
            self._announced[task_id] = announced[0], self._clock()
        reply = self._given_up.pop(task_id, None)
        if reply is not None:
            # The client is alive: tell it not to send the reply again.
            self._loop.take(reply, 0, None, spoiled="its round closed before all of it had come")
        if self._loop.tasks.may_want(task_id) and not self._uploads.is_open(chunk.name):
            self._uploads.hold(chunk.name, chunk.index, chunk.data)
            self._ack(incoming)
        else:
            upload = self._uploads.add(chunk.name, chunk.index, chunk.data)
            self._take(task_id, upload, incoming)

    def give_up_stale(self) -> None:
        """Discard arriving replies that can no longer count."""
        self._uploads.discard_if(self._is_over)
        for task_id in [task_id for task_id in self._announced if self._is_over(task_id)]:
            self._given_up[task_id] = self._announced.pop(task_id)[0]
        while len(self._given_up) > _REMEMBERED:
            self._given_up.popitem(last=False)

    def close(self) -> None:
        """Give up all arriving replies."""
        self._uploads.close()

    def _take(self, task_id: str, upload: Uploaded | Spoiled | None, incoming: Incoming) -> None:
        match upload:
            case None:
                self._ack(incoming)
            case Uploaded(PartialSum()) | Spoiled(PartialSum()) if self._is_forgotten(task_id):
                self._ack(incoming)  # its aggregator is told when it sends it again
            case Uploaded(PartialSum() as partial, size):
                self._loop.take_sum(partial, size, incoming)
            case Spoiled(PartialSum() as partial, reason):
                self._loop.take_sum(partial, 0, incoming, problem=reason)
            case Uploaded(Reply() as reply, size):
                self._announced.pop(task_id, None)
                self._loop.take(reply, size, incoming)
            case Spoiled(Reply() as reply, reason):
                self._announced.pop(task_id, None)
                self._loop.take(reply, 0, incoming, spoiled=reason)

    def _is_forgotten(self, order_id: str) -> bool:
        """Return whether the phase of an order is no longer in memory."""
        return self._loop.tasks.order_of(order_id) is None

    def _is_over(self, task_id: str) -> bool:
        if not self._loop.tasks.is_over(task_id):
            return False
        announced = self._announced.get(task_id)
        if announced is None:
            return True
        reply, heard = announced
        return self._clock() - heard > _SILENCE or not self.is_wanted(reply)

    def _sent_to(self, reply: Reply) -> int | None:
        """Return the bytes of parameters sent with a reply's task; None: not known."""
        found = self._loop.tasks.phase_of(reply.task_id)
        ask = None if found is None else found[0].asks.get(found[1])
        sent = None if ask is None else parameters_of(ask.ins)
        return None if sent is None else size_of(sent)
