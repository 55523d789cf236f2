"""Parameters as one run of bytes in chunks, separate from the envelope that names them (sans-IO).

A *blob* is the concatenation of a model's tensors. Its `BlobRef` travels in a task or a reply and
gives the blob's digest, the length of each tensor, and the number of chunks. The chunks are
messages of their own, raw bytes with two headers; they may come in any order, twice, and
interleaved with those of other blobs. A chunk is trusted no further than the reference allows.

A reference with a ``key`` is of a blob that travels encrypted (`flmq.e2e.chunks`): `iter_chunks`
encrypts each chunk as it is sent, and `BlobProgress.take` decrypts it as it comes, so nobody else
has to know. Digest and sizes are of the plain bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate
from mmap import mmap
from typing import TYPE_CHECKING, BinaryIO

from blake3 import blake3

from flmq.common.errors import MalformedMessage
from flmq.common.tensor_names import names_problem
from flmq.common.typing import Parameters
from flmq.e2e.names import CHUNK_OVERHEAD, KEY_BYTES

if TYPE_CHECKING:  # the package behind it is an extra
    from flmq.e2e.chunks import ChunkCipher

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
    "refer_file",
    "size_of",
    "task_of_upload",
    "tensors_of",
    "upload_name",
]

BLOB_CHUNK_BYTES = 1 << 20
"""Chunk size in bytes that pika and RabbitMQ move fastest (docs/performance.md)."""
INLINE_BYTES = 64 * 1024
"""Smaller parameters (bytes) travel in their envelope: one message less to wait for."""
MAX_CHUNK_BYTES = 4 << 20
MAX_BLOB_BYTES = 1 << 40
MAX_BLOB_CHUNKS = 1 << 20
"""A limit, as the bookkeeping of all chunks is allocated before the first one comes."""
_MAX_TENSORS = 1 << 17
"""A limit, as a view of each tensor takes 200 bytes before anybody looks at one."""

_MAX_NAME = 96
_BLOB = "x-flmq-blob"
_INDEX = "x-flmq-blob-index"
_HEX = re.compile(r"[0-9a-f]{64}")

Buffer = bytes | bytearray | memoryview | mmap


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Reference to a blob: its digest and its layout."""

    digest: str
    """BLAKE3 of the tensors' type, their lengths, and their bytes; 64 hexadecimal digits."""
    tensor_type: str
    lengths: tuple[int, ...]
    """Size of each tensor in bytes, in order."""
    chunk_bytes: int = BLOB_CHUNK_BYTES
    """Size in bytes of each chunk but the last."""
    codec: str = ""
    """Name of the codec that compressed the tensors; empty if uncompressed."""
    base: str = ""
    """Digest of the blob that the codec needs to decode this one; empty if it needs none."""
    published_unix_ms: int = 0
    """When a shared model was published (Unix ms, server's clock): a hint where to look for it.

    0: not shared; it is for one client, which requests it from the server.
    """
    names: tuple[str, ...] = ()
    """The name of each tensor, or none at all. Not part of the digest."""
    key: bytes = field(default=b"", repr=False)
    """Content key of its chunks, 32 bytes, which are then `CHUNK_OVERHEAD` longer on the wire;
    empty if they are plain. Not part of the digest, and never shown."""

    @property
    def total(self) -> int:
        """Size of the whole blob in bytes."""
        return sum(self.lengths)

    @property
    def name(self) -> str:
        """The name of its chunks: its digest, or, if it is encrypted, one that tells nothing.

        Whoever guessed the bytes of a model could see by its digest that he is right.
        """
        if not self.key:
            return self.digest
        return blake2b(self.digest.encode(), digest_size=32, key=self.key).hexdigest()

    @property
    def is_shared(self) -> bool:
        """Whether it is a shared model in the stream; otherwise it is requested from the server."""
        return self.published_unix_ms > 0

    @property
    def count(self) -> int:
        """Number of chunks."""
        return -(-self.total // self.chunk_bytes)

    def chunk_range(self, index: int) -> tuple[int, int]:
        """Return the byte offsets where chunk ``index`` begins and ends."""
        start = index * self.chunk_bytes
        return start, min(start + self.chunk_bytes, self.total)

    @property
    def overhead(self) -> int:
        """Bytes by which each chunk is longer on the wire."""
        return CHUNK_OVERHEAD if self.key else 0

    def cipher(self) -> ChunkCipher | None:
        """Return what encrypts and decrypts its chunks; None if they are plain.

        Raises:
            SecureExtraMissing: the package `cryptography` is not installed.
        """
        if not self.key:
            return None
        from flmq.e2e.chunks import ChunkCipher

        return ChunkCipher(self.key, self.digest, self.count)

    def check(self) -> None:
        """Check that the fields can describe a blob.

        Raises:
            ValueError: they cannot; says why.
        """
        check_digest(self.digest, "digest")
        if self.base:
            check_digest(self.base, "base")
        if self.key and len(self.key) != KEY_BYTES:
            raise ValueError(f"a content key of {len(self.key)} bytes: it must have {KEY_BYTES}")
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
        if (problem := names_problem(self.names, len(self.lengths))) is not None:
            raise ValueError(f"a blob with {problem}")
        if self.count > MAX_BLOB_CHUNKS:
            raise ValueError(f"a blob of {self.count} chunks: at most {MAX_BLOB_CHUNKS}")


def check_digest(digest: str, name: str) -> None:
    """Raise ValueError, naming the field ``name``, unless ``digest`` is a valid digest."""
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
        tuple(parameters.names),
    )


def refer_file(file: BinaryIO, tensor_type: str, lengths: Sequence[int]) -> BlobRef:
    """Make the reference of tensors that follow each other in a file, read block by block."""
    digest = blake3(_outline(tensor_type, lengths))
    file.seek(0)
    while block := file.read(BLOB_CHUNK_BYTES):
        digest.update(block)
    return BlobRef(digest.hexdigest(), tensor_type, tuple(lengths), BLOB_CHUNK_BYTES)


def size_of(parameters: Parameters) -> int:
    """Return the total size of all tensors in bytes."""
    return sum(map(len, parameters.tensors))


def iter_chunks(
    ref: BlobRef, tensors: Sequence[Buffer]
) -> Iterator[tuple[int, bytes | memoryview]]:
    """Yield the chunks as (index, bytes), encrypted if ``ref`` has a key.

    Plain ones are views if within one tensor, otherwise copies.
    """
    cipher = ref.cipher()
    views = [memoryview(tensor).cast("B") for tensor in tensors]
    bounds = [0, *accumulate(len(view) for view in views)]
    tensor, total, size = 0, ref.total, ref.chunk_bytes
    for index in range(-(-total // size)):
        start, end = index * size, min((index + 1) * size, total)
        parts = []
        while start < end:
            while bounds[tensor + 1] <= start:
                tensor += 1
            upto = min(end, bounds[tensor + 1])
            parts.append(views[tensor][start - bounds[tensor] : upto - bounds[tensor]])
            start = upto
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        yield index, data if cipher is None else cipher.encrypt(index, data)


def tensors_of(ref: BlobRef, blob: Buffer) -> list[memoryview]:
    """Return the tensors of a complete blob as read-only views of it."""
    view = memoryview(blob).toreadonly()
    ends = list(accumulate(ref.lengths))
    return [view[end - length : end] for end, length in zip(ends, ref.lengths, strict=True)]


def upload_name(task_id: str, ref: BlobRef) -> str:
    """Return the name of the chunks of a task's reply.

    It contains the digest too: a task may be answered twice (if its worker was killed in between),
    and the chunks of the two answers, which come by another queue than the replies, must not be
    mixed.
    """
    return f"{task_id}.{ref.name[:16]}"


def task_of_upload(name: str) -> str:
    """Return the id of the task whose reply chunks have this name."""
    return name.partition(".")[0]


def blob_chunk_headers(name: str, index: int) -> dict[str, str | int]:
    """Return the AMQP headers of a chunk; ``name`` is `BlobRef.name` or an `upload_name`."""
    return {_BLOB: name, _INDEX: index}


@dataclass(frozen=True, slots=True)
class BlobChunk:
    """A chunk of a blob, as received in a message."""

    name: str
    """`BlobRef.name`, or an `upload_name`."""
    index: int
    data: bytes | memoryview


def blob_chunk_of(headers: Mapping[str, object], data: bytes | memoryview) -> BlobChunk | None:
    """Return the chunk that a message carries; None if it is not a chunk.

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
    if len(data) > MAX_CHUNK_BYTES + CHUNK_OVERHEAD:
        raise MalformedMessage(f"a blob's chunk of {len(data)} bytes: at most {MAX_CHUNK_BYTES}")
    return BlobChunk(name, index, data)


class BlobProgress:
    """Track which chunks of a blob have arrived, and verify them against the reference.

    The bytes themselves are stored elsewhere: `take` returns where a chunk belongs. Chunks that
    come in order are hashed as they come; after any other order, `finish` hashes the whole blob
    again.
    """

    def __init__(self, ref: BlobRef) -> None:
        """Wait for the chunks of ``ref``."""
        self.ref = ref
        self.name = ref.name
        """The name of its chunks."""
        # Known once: a reference may have 100,000 tensors, and a chunk a byte.
        self._total, self._count = ref.total, ref.count
        self._missing = self._count
        self._here = bytearray(self._count)
        self._hash = blake3(_outline(ref.tensor_type, ref.lengths))
        self._hashed = 0
        self._cipher = ref.cipher()

    @property
    def complete(self) -> bool:
        """Whether all chunks have arrived."""
        return self._missing == 0

    @property
    def missing(self) -> int:
        """Number of chunks that have not arrived yet."""
        return self._missing

    @property
    def received(self) -> int:
        """Number of chunks that have arrived."""
        return self._count - self._missing

    def take(
        self, index: int, data: Buffer, to: memoryview | None = None
    ) -> tuple[int, Buffer] | None:
        """Take chunk ``index``; None if it has arrived before.

        Returns the byte offset where it belongs, and its plain bytes: ``data`` itself, or what it
        is decrypted to. With ``to``, the memory of the whole blob, they are put there as well; an
        encrypted chunk is decrypted to its place, and not copied.

        Raises:
            MalformedMessage: there is no such chunk, its length is wrong, or (`Forged`) it was not
                encrypted as this chunk of this blob. The place may then hold anything, and the
                right chunk is still awaited.
        """
        if not 0 <= index < self._count:
            raise MalformedMessage(f"chunk {index} of a blob of {self._count} chunks")
        start = index * self.ref.chunk_bytes
        end = min(start + self.ref.chunk_bytes, self._total)
        if len(data) != end - start + self.ref.overhead:
            raise MalformedMessage(
                f"chunk {index} has {len(data)} bytes, not {end - start + self.ref.overhead}"
            )
        if self._here[index]:
            return None
        plain: Buffer = data
        if self._cipher is not None and to is not None:
            plain = to[start:end]
            self._cipher.decrypt_into(index, _readable(data), plain)
        elif self._cipher is not None:
            plain = self._cipher.decrypt(index, _readable(data))
        elif to is not None:
            to[start:end] = data
        self._here[index] = 1
        self._missing -= 1
        if start == self._hashed:
            self._hash.update(plain)
            self._hashed = end
        return start, plain

    def finish(self, blob: Buffer) -> None:
        """Check the digest of the complete ``blob``.

        Raises:
            MalformedMessage: the bytes are not those that the reference names.
        """
        if self._hashed < self._total:
            self._hash.update(memoryview(blob)[self._hashed :])
            self._hashed = self._total
        digest = self._hash.hexdigest()
        if digest != self.ref.digest:
            raise MalformedMessage(
                f"a blob has digest {digest[:16]}..., not {self.ref.digest[:16]}... as stated"
            )


def _readable(data: Buffer) -> bytes | bytearray | memoryview:
    return memoryview(data) if isinstance(data, mmap) else data


def _outline(tensor_type: str, lengths: Sequence[int]) -> bytes:
    """Return what is hashed before the tensors; unambiguous, as it includes every length."""
    kind = tensor_type.encode()
    numbers = [length.to_bytes(8, "big") for length in (len(lengths), *lengths)]
    return b"".join([b"flmq blob 1\0", len(kind).to_bytes(4, "big"), kind, *numbers])
