"""Assemble replies whose parameters arrive in interleaved chunks, in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flmq.common.errors import MalformedMessage
from flmq.common.logger import logger
from flmq.common.parameter import parameters_of, with_parameters
from flmq.common.rare_lines import RareLines
from flmq.common.typing import Parameters
from flmq.server.replies.spool import SpooledParameters, SpoolFile, SpoolFolder
from flmq.transport import STREAM_MAX_BYTES
from flmq.wire import (
    BlobRef,
    PartialSum,
    Reply,
    iter_chunks,
    refer,
    size_of,
    task_of_upload,
    upload_name,
)
from flmq.wire.codecs import base_by_name, get_codec

_EARLY_CHUNKS = 64
"""Of all tasks together; one has at most half of them."""
_EARLY_BYTES, _EARLY_BYTES_EACH = 64 << 20, 24 << 20
_AT_ONCE = 8
"""Most uploads of one client at once: it trains one at a time, but some replies may be late."""
_MAX_BYTES = STREAM_MAX_BYTES // 2
"""Most bytes of a reply if what its client was sent is not known: no larger model can be sent."""
_TIMES_SENT, _BESIDES = 4, 64 << 20
_MORE = 1 << 20
"""Bytes by which a reply may be larger than what was sent for its space to be reserved."""

__all__ = ["Announced", "NotOfUpload", "Spoiled", "Uploaded", "Uploads"]


Announced = Reply | PartialSum
"""What parameters follow in chunks: a client's reply, or an aggregator's partial sum."""


class NotOfUpload(MalformedMessage):
    """A chunk was not encrypted as the chunk that it says it is: its upload goes on without it."""


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A failed upload, and why it failed."""

    reply: Announced
    reason: str


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A reply with its parameters, and the bytes received for it."""

    reply: Announced
    bytes: int


@dataclass(slots=True)
class _Upload:
    client_id: str
    """Who began it."""
    reply: Announced
    ref: BlobRef
    file: SpoolFile
    bytes: int


class Uploads:
    """The uploads in progress, by task. For one thread, except `received`."""

    def __init__(
        self,
        folder: Path | None,
        max_bytes: int | None,
        *,
        codec: str = "",
        base_of: Callable[[str], Parameters | None] = lambda digest: None,
    ) -> None:
        """Spool below ``folder`` (None: a temporary one); refuse blobs over ``max_bytes``.

        ``max_bytes`` None: four times what the client was sent plus 64 MiB, which leaves room for
        a strategy's other results without filling the disk.

        ``codec`` is the codec that tasks offer. ``base_of`` returns the model with a given digest,
        against which replies are compressed; None: not known.
        """
        self._lines = RareLines()
        self._codec = codec
        self._base_of = base_of
        self._folder: SpoolFolder | None = SpoolFolder(folder)
        self._max_bytes = max_bytes
        self._open: dict[str, _Upload] = {}
        self._of_client: dict[str, dict[str, None]] = {}
        """Tasks of the uploads in progress, the oldest first, by client."""
        self._early: dict[str, list[tuple[int, bytes]]] = {}
        """Chunks by the name of an upload that no reply has announced yet."""
        self.incomplete = 0
        """Number of uploads given up so far."""
        self.stray_chunks = 0
        """Number of chunks that belong to no upload in progress: their reply was late, replaced
        or already complete."""

    def begin(
        self,
        reply: Announced,
        ref: BlobRef,
        size: int,
        sent: int | None = None,
        *,
        at_most: int | None = None,
    ) -> Uploaded | Spoiled | None:
        """Expect the chunks of ``reply``, whose envelope had ``size`` bytes.

        ``sent`` is the number of bytes of parameters its client was sent; None: not known.
        ``at_most`` bounds the bytes instead of what follows from ``sent``.

        Return `Spoiled` if the upload is refused, else as `add` does for chunks already held.

        A reply announced again with the same blob continues its upload; cut in other chunks, it
        begins anew.

        Raises:
            SpoolFailed: the server's own disk cannot store it.
        """
        known = self._open.get(reply.task_id)
        if known is not None:
            if known.ref == ref:  # the same layout and key too: other chunks do not fit
                known.reply = reply
                return None
            self.discard(reply.task_id)
        assert self._folder is not None, "nothing begins after the end"
        if ref.codec not in ("", self._codec) or (ref.codec and isinstance(reply, PartialSum)):
            return Spoiled(reply, f"its parameters are compressed by {ref.codec!r}, unasked")
        limit = self._limit(sent) if at_most is None else at_most
        if ref.total > limit:
            return Spoiled(
                reply,
                f"its parameters have {ref.total} bytes and the server takes {limit}: "
                "raise max_reply_bytes",
            )
        self._make_way_for(reply)
        # Reserve no space where only the sender's word says how much will come: many who announce
        # more than they send would fill the disk with nothing.
        expected = sent is not None and ref.total <= sent + _MORE
        file = SpoolFile(self._folder, reply.task_id, ref, ahead=expected)
        self._open[reply.task_id] = _Upload(reply.client_id, reply, ref, file, size)
        self._of_client.setdefault(reply.client_id, {})[reply.task_id] = None
        name = upload_name(reply.task_id, ref)
        for index, data in self._early.pop(name, []):
            try:
                done = self.add(name, index, data)
            except NotOfUpload as error:
                self._lines.warn(str(error))
                continue
            if done is not None:
                return done
        return None

    def _make_way_for(self, reply: Announced) -> None:
        """Give up the oldest upload of a client that has too many; it is asked to send it again."""
        of_client = self._of_client.get(reply.client_id, {})
        if len(of_client) >= _AT_ONCE:
            logger.warning(
                "client %s has %d replies on their way here at once: the oldest is given up",
                reply.client_id,
                len(of_client) + 1,
            )
            self.discard(next(iter(of_client)))

    def _limit(self, sent: int | None) -> int:
        if self._max_bytes is not None:
            return self._max_bytes
        return _MAX_BYTES if sent is None else _TIMES_SENT * sent + _BESIDES

    def hold(self, name: str, index: int, data: bytes | memoryview) -> None:
        """Keep a chunk that came, by another queue, before its reply; drop it if too many wait.

        A task has its share, whatever it calls its uploads: one that floods leaves room to others.
        """
        early = {each: [len(data) for _, data in held] for each, held in self._early.items()}
        task_id = task_of_upload(name)
        own = (held for each, held in early.items() if task_of_upload(each) == task_id)
        mine = [size for held in own for size in held]
        every = [size for held in early.values() for size in held]
        if (
            max(len(every), 2 * len(mine)) >= _EARLY_CHUNKS
            or sum(every) + len(data) > _EARLY_BYTES
            or sum(mine) + len(data) > _EARLY_BYTES_EACH
        ):
            self.stray_chunks += 1
            return
        self._early.setdefault(name, []).append((index, bytes(data)))

    def is_open(self, name: str) -> bool:
        """Return whether chunks of this upload are expected."""
        return self._find(name) is not None

    def received(self) -> dict[str, int]:
        """Return the bytes received of each upload in progress, by task. For any thread."""
        return {task_id: upload.bytes for task_id, upload in list(self._open.items())}

    def add(self, name: str, index: int, data: bytes | memoryview) -> Uploaded | Spoiled | None:
        """Take in a chunk of the upload called ``name`` (`flmq.wire.upload_name`).

        Returns:
            `Uploaded` with the last chunk; `Spoiled` if this chunk made the upload fail; None: the
            upload is not complete, or not in progress.

        Raises:
            NotOfUpload: the upload is encrypted, and this is no chunk of it: it goes on.
            SpoolFailed: the server's own disk cannot store it.
        """
        upload = self._find(name)
        if upload is None:
            self.stray_chunks += 1
            return None
        task_id = upload.reply.task_id
        upload.bytes += len(data)
        try:
            if not self._written(upload, index, data):
                return None
            parameters = upload.file.parameters()
        except NotOfUpload:
            raise
        except MalformedMessage as error:
            self.discard(task_id)
            return Spoiled(upload.reply, str(error))
        self._close(task_id)
        packed = upload.ref if upload.ref.codec else None
        match upload.reply:
            case PartialSum() as partial:
                whole: Announced = replace(partial, parameters=parameters, blob=None)
            case reply:
                whole = _filled(reply, parameters, packed)
        return Uploaded(whole, upload.bytes)

    def _written(self, upload: _Upload, index: int, data: bytes | memoryview) -> bool:
        """Write a chunk; return whether the upload is complete."""
        try:
            return upload.file.write(index, data)
        except MalformedMessage as error:
            if not upload.ref.key:
                raise
            # Whoever has the key makes no such chunk: the right one may still come.
            self.stray_chunks += 1
            raise NotOfUpload(f"a chunk of a reply of {upload.client_id}: {error}") from error

    def unpack(self, reply: Reply) -> Reply | Spoiled:
        """Return a compressed reply decompressed; its ``blob`` says how it is compressed.

        Raises:
            SpoolFailed: the server's own disk cannot store it.
        """
        ref = reply.blob
        assert ref is not None
        assert self._folder is not None
        packed = parameters_of(reply.res)
        assert packed is not None
        base = self._base_of(ref.base)
        if base is None:
            return Spoiled(reply, "its parameters are compressed against another model")
        try:
            tensors = get_codec(ref.codec).decode(
                packed.tensors,
                base_by_name(ref.names, base),
                max_bytes=self._limit(size_of(base)),
            )
            plain = Parameters([bytes(one) for one in tensors], ref.tensor_type, ref.names)
            return self.store(reply, plain)
        except MalformedMessage as error:
            return Spoiled(reply, str(error))

    def store(self, reply: Reply, parameters: Parameters) -> Reply:
        """Return the reply with these parameters in a file, in place of its own.

        Raises:
            SpoolFailed: the server's own disk cannot store them.
        """
        return _filled(reply, self._stored(reply.task_id, parameters), None)

    def store_sum(self, partial: PartialSum) -> PartialSum:
        """Return a small partial sum with its tensors in a file, as those of large ones are.

        Raises:
            SpoolFailed: the server's own disk cannot store them.
        """
        return replace(partial, parameters=self._stored(partial.task_id, partial.parameters))

    def _stored(self, task_id: str, parameters: Parameters) -> SpooledParameters:
        assert self._folder is not None
        file = SpoolFile(self._folder, f"{task_id}.plain", refer(parameters))
        with contextlib.closing(file):
            for index, data in iter_chunks(file.ref, parameters.tensors):
                file.write(index, data)
            return file.parameters()

    def _find(self, name: str) -> _Upload | None:
        upload = self._open.get(task_of_upload(name))
        if upload is None or name != upload_name(upload.reply.task_id, upload.ref):
            return None
        return upload

    def discard(self, task_id: str) -> None:
        """Give up the upload of a task, if one is in progress."""
        upload = self._close(task_id)
        if upload is not None:
            self.incomplete += 1
            upload.file.close()

    def _close(self, task_id: str) -> _Upload | None:
        """Return the upload of a task, which is no longer in progress; None: it was not."""
        upload = self._open.pop(task_id, None)
        if upload is not None:
            of_client = self._of_client[upload.client_id]
            del of_client[task_id]
            if not of_client:
                del self._of_client[upload.client_id]
        return upload

    def discard_if(self, over: Callable[[str], bool]) -> None:
        """Give up the uploads and early chunks of the tasks for which ``over`` returns true."""
        for task_id in [task_id for task_id in self._open if over(task_id)]:
            self.discard(task_id)
        for name in [name for name in self._early if over(task_of_upload(name))]:
            del self._early[name]

    def close(self) -> None:
        """Give up all uploads; results still held stay readable. Idempotent."""
        for task_id in list(self._open):
            self.discard(task_id)
        if self._folder is not None:
            self._folder.keep(0)
        self._folder = None


def _filled(reply: Reply, parameters: SpooledParameters, packed: BlobRef | None) -> Reply:
    """Return the reply with its parameters; ``packed`` None: they are not compressed."""
    return replace(reply, res=with_parameters(reply.res, parameters), blob=packed)
