"""Parameters as one long run of bytes, apart from the envelope that names them: sans-IO.

A *blob* is the concatenation of a model's tensors. Its `BlobRef` travels in a task or a reply and
says what the blob is: its digest, the length of each tensor, and into how many chunks it is cut.
The chunks are messages of their own, raw bytes with two headers; they may come in any order, twice,
and interleaved with others'. Nothing that a chunk says is believed beyond what its reference said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from mmap import mmap

from blake3 import blake3

from flmq.common.errors import MalformedMessage
from flmq.common.typing import Parameters

__all__ = [
    "BLOB_CHUNK_BYTES",
    "INLINE_BYTES",
    "BlobChunk",
    "BlobProgress",
    "BlobRef",
    "blob_chunk_headers",
    "blob_chunk_of",
    "check_digest",
    "iter_chunks",
    "refer",
    "size_of",
    "task_of_upload",
    "tensors_of",
    "upload_name",
]

BLOB_CHUNK_BYTES = 1 << 20
"""What pika and RabbitMQ move fastest (docs/performance.md)."""
INLINE_BYTES = 64 * 1024
"""Smaller parameters ride in their envelope: one message less to wait for."""
MAX_CHUNK_BYTES = 4 << 20
MAX_BLOB_BYTES = 1 << 40
MAX_BLOB_CHUNKS = 1 << 20
"""What is noted of each chunk takes memory before the first one comes: not on a sender's word."""
_MAX_TENSORS = 1 << 20

_MAX_NAME = 96
_BLOB = "x-flmq-blob"
_INDEX = "x-flmq-blob-index"
_HEX = re.compile(r"[0-9a-f]{64}")

Buffer = bytes | bytearray | memoryview | mmap


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Which blob, and what it looks like."""

    digest: str
    """BLAKE3 over the tensors' type, their lengths, and their bytes; 64 hexadecimal digits."""
    tensor_type: str
    lengths: tuple[int, ...]
    """Bytes of each tensor, in order."""
    chunk_bytes: int = BLOB_CHUNK_BYTES
    """Bytes of each chunk but the last."""
    codec: str = ""
    """How the tensors are compressed; empty: not at all."""
    base: str = ""
    """Digest of the blob that the codec needs to decode this one; empty: none."""
    published_unix_ms: int = 0
    """When a shared model was published, by the server's clock, and a hint where to look for it.

    0: never; it is one client's own, which gets it by asking.
    """

    @property
    def total(self) -> int:
        """Bytes of the whole blob."""
        return sum(self.lengths)

    @property
    def is_shared(self) -> bool:
        """Whether a model is in the stream, for everybody, and not to be asked for."""
        return self.published_unix_ms > 0

    @property
    def count(self) -> int:
        """How many chunks it has."""
        return -(-self.total // self.chunk_bytes)

    def chunk_range(self, index: int) -> tuple[int, int]:
        """Where chunk ``index`` begins and ends."""
        start = index * self.chunk_bytes
        return start, min(start + self.chunk_bytes, self.total)

    def check(self) -> None:
        """Do nothing if this can be a blob.

        Raises:
            ValueError: it cannot; says why.
        """
        check_digest(self.digest, "digest")
        if self.base:
            check_digest(self.base, "base")
        if not 1 <= self.chunk_bytes <= MAX_CHUNK_BYTES:
            raise ValueError(
                f"chunks of {self.chunk_bytes} bytes: 1 to {MAX_CHUNK_BYTES} it may be"
            )
        if len(self.lengths) > _MAX_TENSORS or not 0 < self.total <= MAX_BLOB_BYTES:
            raise ValueError(
                f"a blob of {len(self.lengths)} tensors and {self.total} bytes: at most "
                f"{_MAX_TENSORS} and {MAX_BLOB_BYTES}, and not empty"
            )
        if min(self.lengths) < 0:
            raise ValueError(f"a blob with a tensor of {min(self.lengths)} bytes")
        if self.count > MAX_BLOB_CHUNKS:
            raise ValueError(f"a blob of {self.count} chunks: at most {MAX_BLOB_CHUNKS}")


def check_digest(digest: str, name: str) -> None:
    """Do nothing if ``digest`` is one; ValueError with its ``name`` if not."""
    if _HEX.fullmatch(digest) is None:
        raise ValueError(f"{name} {digest[:80]!r} is not 64 hexadecimal digits")


def refer(
    parameters: Parameters,
    *,
    chunk_bytes: int = BLOB_CHUNK_BYTES,
    codec: str = "",
    base: str = "",
    published_unix_ms: int = 0,
) -> BlobRef:
    """Make the reference of ``parameters``, reading all their bytes once."""
    lengths = tuple(memoryview(tensor).nbytes for tensor in parameters.tensors)
    digest = blake3(_outline(parameters.tensor_type, lengths))
    for tensor in parameters.tensors:
        digest.update(memoryview(tensor).cast("B"))
    return BlobRef(
        digest.hexdigest(),
        parameters.tensor_type,
        lengths,
        chunk_bytes,
        codec,
        base,
        published_unix_ms,
    )


def size_of(parameters: Parameters) -> int:
    """Bytes of all tensors."""
    return sum(map(len, parameters.tensors))


def iter_chunks(
    ref: BlobRef, tensors: Sequence[Buffer]
) -> Iterator[tuple[int, bytes | memoryview]]:
    """Cut into chunks: (index, bytes). A chunk within one tensor is a view, others are joined."""
    views = [memoryview(tensor).cast("B") for tensor in tensors]
    bounds = [0, *accumulate(len(view) for view in views)]
    tensor = 0
    for index in range(ref.count):
        start, end = ref.chunk_range(index)
        parts = []
        while start < end:
            while bounds[tensor + 1] <= start:
                tensor += 1
            upto = min(end, bounds[tensor + 1])
            parts.append(views[tensor][start - bounds[tensor] : upto - bounds[tensor]])
            start = upto
        yield index, parts[0] if len(parts) == 1 else b"".join(parts)


def tensors_of(ref: BlobRef, blob: Buffer) -> list[memoryview]:
    """The tensors of a whole blob, as views of it through which nobody can change it."""
    view = memoryview(blob).toreadonly()
    ends = list(accumulate(ref.lengths))
    return [view[end - length : end] for end, length in zip(ends, ref.lengths, strict=True)]


def upload_name(task_id: str, ref: BlobRef) -> str:
    """What the chunks of a task's reply are called.

    By the digest as well, for a task may be answered twice (its worker was killed in between) and
    the chunks of the two answers, which come by another queue than what announces them, not mixed.
    """
    return f"{task_id}.{ref.digest[:16]}"


def task_of_upload(name: str) -> str:
    """The task whose reply chunks of this name belong to."""
    return name.partition(".")[0]


def blob_chunk_headers(name: str, index: int) -> dict[str, str | int]:
    """AMQP headers of a chunk; ``name`` is the blob's digest, or an `upload_name`."""
    return {_BLOB: name, _INDEX: index}


@dataclass(frozen=True, slots=True)
class BlobChunk:
    """A piece of a blob, as a message brought it."""

    name: str
    """The blob's digest, or an `upload_name`."""
    index: int
    data: bytes | memoryview


def blob_chunk_of(headers: Mapping[str, object], data: bytes | memoryview) -> BlobChunk | None:
    """The chunk that a message is; None if it is none.

    Raises:
        MalformedMessage: the headers do not describe a chunk.
    """
    name = headers.get(_BLOB)
    if name is None:
        return None
    index = headers.get(_INDEX)
    if not isinstance(name, str) or not isinstance(index, int) or isinstance(index, bool):
        raise MalformedMessage("a blob's chunk without its blob's name or its index")
    if not 0 <= index <= MAX_BLOB_BYTES or not 1 <= len(name) <= _MAX_NAME:
        raise MalformedMessage(f"a blob's chunk with index {index} of {name[:80]!r}")
    if len(data) > MAX_CHUNK_BYTES:
        raise MalformedMessage(f"a blob's chunk of {len(data)} bytes: at most {MAX_CHUNK_BYTES}")
    return BlobChunk(name, index, data)


class BlobProgress:
    """Which chunks of a blob are here, and whether they are what the reference says.

    The bytes themselves are kept elsewhere: `accept` says where a chunk belongs. Chunks that come
    in order are hashed as they come; after any other order `finish` hashes the whole again.
    """

    def __init__(self, ref: BlobRef) -> None:
        """Wait for the chunks of ``ref``."""
        self.ref = ref
        self._missing = ref.count
        self._here = bytearray(ref.count)
        self._hash = blake3(_outline(ref.tensor_type, ref.lengths))
        self._hashed = 0

    @property
    def complete(self) -> bool:
        """Whether every chunk is here."""
        return self._missing == 0

    @property
    def received(self) -> int:
        """Chunks that are here."""
        return self.ref.count - self._missing

    def accept(self, index: int, data: Buffer) -> int | None:
        """Where in the blob chunk ``index`` belongs; None for one that is here already.

        Raises:
            MalformedMessage: there is no such chunk, or it has another length.
        """
        if not 0 <= index < self.ref.count:
            raise MalformedMessage(f"chunk {index} of a blob of {self.ref.count} chunks")
        start, end = self.ref.chunk_range(index)
        if len(data) != end - start:
            raise MalformedMessage(f"chunk {index} has {len(data)} bytes, not {end - start}")
        if self._here[index]:
            return None
        self._here[index] = 1
        self._missing -= 1
        if start == self._hashed:
            self._hash.update(data)
            self._hashed = end
        return start

    def finish(self, blob: Buffer) -> None:
        """Check the digest of the complete ``blob``.

        Raises:
            MalformedMessage: the bytes are not those that the reference names.
        """
        if self._hashed < self.ref.total:
            self._hash.update(memoryview(blob)[self._hashed :])
            self._hashed = self.ref.total
        digest = self._hash.hexdigest()
        if digest != self.ref.digest:
            raise MalformedMessage(
                f"a blob has digest {digest[:16]}..., not {self.ref.digest[:16]}... as stated"
            )


def _outline(tensor_type: str, lengths: Sequence[int]) -> bytes:
    """What is hashed before the tensors: unambiguous, for every length stands in it."""
    kind = tensor_type.encode()
    numbers = [length.to_bytes(8, "big") for length in (len(lengths), *lengths)]
    return b"".join([b"flmq blob 1\0", len(kind).to_bytes(4, "big"), kind, *numbers])
