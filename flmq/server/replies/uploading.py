"""Replies on their way here, chunk by chunk: which are worth waiting for, and how long.

For the listener's thread, but for `received` and `losses`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from flmq.common.parameter import parameters_of
from flmq.messaging import Incoming
from flmq.round.fates import Fate
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.server.replies.uploads import Spoiled, Uploaded, Uploads
from flmq.wire import BlobChunk, Reply, size_of, task_of_upload

__all__ = ["Uploading"]

_SILENCE = 60.0
"""Seconds after its last chunk at which a late reply is given up that is to count."""
_REMEMBERED = 1000
"""Replies that were given up, and whose clients are told so if they go on sending."""
_WANTED = (Fate.SETTLES, Fate.EARLY, Fate.UNDECIDED, Fate.LATE_WANTED)


class Uploading:
    """The replies of a job that are on their way here."""

    def __init__(
        self,
        loop: ReplyLoop,
        uploads: Uploads,
        ack: Callable[[Incoming], None],
        clock: Callable[[], float],
    ) -> None:
        """Gather them in ``uploads``, and hand them to ``loop`` when they are all here."""
        self._loop = loop
        self._uploads = uploads
        self._ack = ack
        self._clock = clock
        self._announced: dict[str, tuple[Reply, float]] = {}
        """By task, and when they were last heard of."""
        self._given_up: OrderedDict[str, Reply] = OrderedDict()

    def is_wanted(self, reply: Reply) -> bool:
        """Whether this reply, once it is all here, may settle its task or count later."""
        return self._loop.tasks.fate_of(reply) in _WANTED

    def begin(self, reply: Reply, incoming: Incoming) -> None:
        """Expect the chunks of a reply whose envelope is here."""
        assert reply.blob is not None
        self._announced[reply.task_id] = reply, self._clock()
        self._given_up.pop(reply.task_id, None)
        sent = self._sent_to(reply)
        upload = self._uploads.begin(reply, reply.blob, incoming.bytes, sent)
        self._take(reply.task_id, upload, incoming)

    def hear_chunk(self, chunk: BlobChunk, incoming: Incoming) -> None:
        """Take in a chunk."""
        task_id = task_of_upload(chunk.name)
        announced = self._announced.get(task_id)
        if announced is not None:
            self._announced[task_id] = announced[0], self._clock()
        reply = self._given_up.pop(task_id, None)
        if reply is not None:
            # Its client lives, and must know that it need not send it again.
            self._loop.take(reply, 0, None, spoiled="its round closed before all of it had come")
        if self._loop.tasks.may_want(task_id) and not self._uploads.is_open(chunk.name):
            self._uploads.hold(chunk.name, chunk.index, chunk.data)
            self._ack(incoming)
        else:
            upload = self._uploads.add(chunk.name, chunk.index, chunk.data)
            self._take(task_id, upload, incoming)

    def give_up_stale(self) -> None:
        """Discard what is on its way and will not count any more."""
        self._uploads.discard_if(self._is_over)
        for task_id in [task_id for task_id in self._announced if self._is_over(task_id)]:
            self._given_up[task_id] = self._announced.pop(task_id)[0]
        while len(self._given_up) > _REMEMBERED:
            self._given_up.popitem(last=False)

    def close(self) -> None:
        """Give everything up."""
        self._uploads.close()

    def _take(self, task_id: str, upload: Uploaded | Spoiled | None, incoming: Incoming) -> None:
        match upload:
            case None:
                self._ack(incoming)
            case Uploaded(reply, size):
                self._announced.pop(task_id, None)
                self._loop.take(reply, size, incoming)
            case Spoiled(reply, reason):
                self._announced.pop(task_id, None)
                self._loop.take(reply, 0, incoming, spoiled=reason)

    def _is_over(self, task_id: str) -> bool:
        if not self._loop.tasks.is_over(task_id):
            return False
        announced = self._announced.get(task_id)
        if announced is None:
            return True
        reply, heard = announced
        return self._clock() - heard > _SILENCE or not self.is_wanted(reply)

    def _sent_to(self, reply: Reply) -> int | None:
        """Bytes of parameters that a reply's client was sent with its task; None: not known."""
        found = self._loop.tasks.phase_of(reply.task_id)
        ask = None if found is None else found[0].asks.get(found[1])
        sent = None if ask is None else parameters_of(ask.ins)
        return None if sent is None else size_of(sent)
