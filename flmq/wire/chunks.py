"""Large bodies in chunks, and back: sans-IO, for whatever carries messages.

RabbitMQ 4 refuses messages over 16 MiB, and 1 MiB is what it moves fastest (DESIGN.md, section 2).
Every chunk names the whole that it belongs to by the whole's digest, so that chunks of many
senders may come interleaved, twice and in any order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from flmq.common.errors import MalformedMessage

__all__ = ["CHUNK_BYTES", "Assembler", "Chunk", "chunk_from_headers", "chunk_headers", "split"]

CHUNK_BYTES = 1 << 20

_DIGEST = "x-flmq-chunk-digest"
_INDEX = "x-flmq-chunk-index"
_COUNT = "x-flmq-chunk-count"
_TOTAL = "x-flmq-chunk-total"
_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a body."""

    digest: str
    """BLAKE2b of the whole body, 32 hexadecimal digits."""
    index: int
    """From 0 to ``count`` - 1."""
    count: int
    total_bytes: int
    """Length of the whole body."""
    data: bytes | memoryview
    """The piece itself; must not change while it is in use."""


def split(body: bytes | memoryview, *, chunk_bytes: int = CHUNK_BYTES) -> list[Chunk]:
    """Cut a body into chunks of ``chunk_bytes`` (the last may be shorter), copying nothing.

    An empty body is one empty chunk.

    Raises:
        ValueError: ``chunk_bytes`` is not positive.
    """
    if chunk_bytes < 1:
        raise ValueError(f"chunk_bytes must be positive, not {chunk_bytes}")
    view = memoryview(body)
    digest = _digest(view)
    total = len(view)
    count = max(1, -(-total // chunk_bytes))
    return [
        Chunk(digest, index, count, total, view[index * chunk_bytes : (index + 1) * chunk_bytes])
        for index in range(count)
    ]


def chunk_headers(chunk: Chunk) -> dict[str, str | int]:
    """All of a chunk but its data, as AMQP headers."""
    return {
        _DIGEST: chunk.digest,
        _INDEX: chunk.index,
        _COUNT: chunk.count,
        _TOTAL: chunk.total_bytes,
    }


def chunk_from_headers(headers: Mapping[str, object], data: bytes | memoryview) -> Chunk | None:
    """The chunk that a message's headers and body are; None when they say nothing of chunks.

    Raises:
        MalformedMessage: the headers do not describe a chunk.
    """
    if not any(name in headers for name in (_DIGEST, _INDEX, _COUNT, _TOTAL)):
        return None
    digest = headers.get(_DIGEST)
    if not isinstance(digest, str):
        raise MalformedMessage(f"chunk header {_DIGEST} is missing or no text")
    index, count, total = (_number(headers, name) for name in (_INDEX, _COUNT, _TOTAL))
    chunk = Chunk(digest, index, count, total, data)
    _check(chunk)
    return chunk


@dataclass(slots=True)
class _Upload:
    """What has come of one body."""

    count: int
    total_bytes: int
    pieces: dict[int, bytes | memoryview] = field(default_factory=dict)
    held_bytes: int = 0


class Assembler:
    """Puts bodies together from chunks. Not thread-safe.

    Chunks are kept as they came until the last one is there, and copied once, then: so nothing
    is allocated on a sender's word, and memory is bounded by what was really received.
    A chunk of a body that is complete already begins that body again.
    """

    def __init__(
        self,
        max_bytes_per_message: int,
        max_total_bytes: int,
        max_open: int,
    ) -> None:
        """Accept bodies of ``max_bytes_per_message``; hold ``max_total_bytes`` of ``max_open``."""
        self._max_bytes_per_message = max_bytes_per_message
        self._max_total_bytes = max_total_bytes
        self._max_open = max_open
        self._uploads: dict[str, dict[str, _Upload]] = {}
        self._open = 0
        self._held_bytes = 0

    @property
    def incomplete(self) -> int:
        """How many bodies have begun to come and are not complete."""
        return self._open

    @property
    def held_bytes(self) -> int:
        """Bytes of all chunks that wait for others."""
        return self._held_bytes

    def add(self, sender_key: str, chunk: Chunk) -> bytes | None:
        """Take a chunk; return its whole body if this was the last one missing, else None.

        A chunk that is there already changes nothing. After an error the body's other chunks
        are dropped, and the same body may be sent again from its beginning.

        Raises:
            MalformedMessage: the chunk contradicts itself, the body's other chunks, its length or
                its digest, or a limit is reached; names sender and body.
        """
        try:
            return self._add(sender_key, chunk)
        except MalformedMessage as error:
            self._drop(sender_key, chunk.digest)
            raise MalformedMessage(
                f"body {chunk.digest[:40]!r} from {sender_key!r} is dropped: {error}"
            ) from error

    def discard(self, sender_key: str) -> int:
        """Drop all that a sender has begun; returns how many bodies that were."""
        digests = list(self._uploads.get(sender_key, ()))
        for digest in digests:
            self._drop(sender_key, digest)
        return len(digests)

    def _add(self, sender_key: str, chunk: Chunk) -> bytes | None:
        _check(chunk)
        if chunk.total_bytes > self._max_bytes_per_message:
            raise MalformedMessage(
                f"{chunk.total_bytes} bytes are more than the {self._max_bytes_per_message} allowed"
            )
        upload = self._upload(sender_key, chunk)
        if (upload.count, upload.total_bytes) != (chunk.count, chunk.total_bytes):
            raise MalformedMessage(
                f"chunk {chunk.index} speaks of {chunk.count} chunks and {chunk.total_bytes} "
                f"bytes, others of {upload.count} and {upload.total_bytes}"
            )
        if chunk.index not in upload.pieces:
            self._keep(upload, chunk)
        if len(upload.pieces) < upload.count:
            return None
        self._drop(sender_key, chunk.digest)
        return _join(upload, chunk.digest)

    def _upload(self, sender_key: str, chunk: Chunk) -> _Upload:
        """What has come of the chunk's body, or a new beginning."""
        upload = self._uploads.get(sender_key, {}).get(chunk.digest)
        if upload is not None:
            return upload
        if self._open >= self._max_open:
            raise MalformedMessage(f"{self._open} other bodies are incomplete, the most allowed")
        upload = _Upload(chunk.count, chunk.total_bytes)
        self._uploads.setdefault(sender_key, {})[chunk.digest] = upload
        self._open += 1
        return upload

    def _keep(self, upload: _Upload, chunk: Chunk) -> None:
        """Hold the chunk's data, within the limits."""
        size = len(chunk.data)
        if upload.held_bytes + size > upload.total_bytes:
            raise MalformedMessage(f"its chunks have more than the {upload.total_bytes} bytes said")
        if self._held_bytes + size > self._max_total_bytes:
            raise MalformedMessage(
                f"{self._held_bytes} bytes of incomplete bodies are held, "
                f"{self._max_total_bytes} are the most allowed"
            )
        upload.pieces[chunk.index] = chunk.data
        upload.held_bytes += size
        self._held_bytes += size

    def _drop(self, sender_key: str, digest: str) -> None:
        """Forget a body, if it has begun."""
        uploads = self._uploads.get(sender_key, {})
        upload = uploads.pop(digest, None)
        if upload is None:
            return
        self._open -= 1
        self._held_bytes -= upload.held_bytes
        if not uploads:
            del self._uploads[sender_key]


def _join(upload: _Upload, digest: str) -> bytes:
    """The whole body, if it is what its chunks said."""
    if upload.held_bytes != upload.total_bytes:
        raise MalformedMessage(
            f"its chunks have {upload.held_bytes} bytes, {upload.total_bytes} were said"
        )
    body = b"".join(upload.pieces[index] for index in range(upload.count))
    if _digest(body) != digest:
        raise MalformedMessage("its bytes do not have this digest: damaged on the way")
    return body


def _check(chunk: Chunk) -> None:
    """Refuse a chunk that contradicts itself."""
    if _HEX.fullmatch(chunk.digest) is None:
        raise MalformedMessage(f"{chunk.digest[:40]!r} is no digest of 32 hexadecimal digits")
    if not 0 <= chunk.index < chunk.count:
        raise MalformedMessage(f"chunk {chunk.index} of {chunk.count}")
    # Every chunk of several has at least one byte, or a sender could have us count for ever.
    if chunk.total_bytes < 0 or chunk.count > max(1, chunk.total_bytes):
        raise MalformedMessage(f"{chunk.total_bytes} bytes in {chunk.count} chunks")
    if chunk.count > 1 and len(chunk.data) == 0:
        raise MalformedMessage(f"chunk {chunk.index} of {chunk.count} is empty")


def _number(headers: Mapping[str, object], name: str) -> int:
    """A header that must be a whole number."""
    value = headers.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedMessage(f"chunk header {name} is missing or no whole number")
    return value


def _digest(body: bytes | memoryview) -> str:
    return blake2b(body, digest_size=16).hexdigest()
