"""Encrypt a blob chunk by chunk, so that none can be cut, swapped, reordered or taken from another.

Each chunk is AES-256-GCM under the blob's content key, with its index as the nonce, and with the
blob's digest, the index and the number of chunks as associated data. That is the construction
STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015), with the number of chunks, known beforehand, in place of the mark
on the last one. Chunks may be opened in any order.

A nonce must never serve two plaintexts under one key. It does not: a content key is derived from a
secret, the digest of the plain bytes, and the size of chunks, so one key has one plaintext. That is
also why it is derived and not drawn: who resumes makes the same key, and chunks that were sent
before still fit.
"""

from __future__ import annotations

from flmq.common.errors import MalformedMessage
from flmq.e2e.errors import Forged
from flmq.e2e.names import CHUNK_OVERHEAD, KEY_BYTES
from flmq.e2e.primitives import AESGCM, InvalidTag, derive, framed

__all__ = ["ChunkCipher", "content_key"]

_NONCE_BYTES = 12

Buffer = bytes | bytearray | memoryview


def content_key(secret: bytes, purpose: str, digest: str, chunk_bytes: int) -> bytes:
    """Return the key of the blob with ``digest``, cut into chunks of ``chunk_bytes``.

    ``purpose`` tells the uses of one secret apart.
    """
    return derive(secret, framed("content", purpose, digest, chunk_bytes.to_bytes(8, "big")))


class ChunkCipher:
    """Encrypt and decrypt the chunks of one blob. Thread-safe: it only reads."""

    def __init__(self, key: bytes, digest: str, count: int) -> None:
        """Use ``key`` for the ``count`` chunks of the blob with ``digest``.

        Raises:
            MalformedMessage: the key does not have 32 bytes.
        """
        if len(key) != KEY_BYTES:
            raise MalformedMessage(f"a content key of {len(key)} bytes: it must have {KEY_BYTES}")
        self._cipher = AESGCM(key)
        self._digest = digest
        self._count = count.to_bytes(8, "big")

    def encrypt(self, index: int, plain: Buffer) -> bytes:
        """Return chunk ``index``, encrypted: `CHUNK_OVERHEAD` bytes longer."""
        nonce, data = self._names(index)
        return self._cipher.encrypt(nonce, plain, data)

    def decrypt(self, index: int, sealed: Buffer) -> bytes:
        """Return the plain bytes of chunk ``index``.

        Raises:
            Forged: it is not this chunk of this blob, or it was changed.
        """
        nonce, data = self._names(index)
        try:
            return self._cipher.decrypt(nonce, sealed, data)
        except InvalidTag:
            raise self._forged(index) from None

    def decrypt_into(self, index: int, sealed: Buffer, to: memoryview) -> None:
        """Decrypt chunk ``index`` to its place ``to``, of exactly its plain size; copy nothing.

        Raises:
            Forged: as `decrypt`; what ``to`` holds is then undefined.
        """
        nonce, data = self._names(index)
        if len(sealed) != len(to) + CHUNK_OVERHEAD:
            raise self._forged(index)
        try:
            self._cipher.decrypt_into(nonce, sealed, data, to)
        except InvalidTag:
            raise self._forged(index) from None

    def _names(self, index: int) -> tuple[bytes, bytes]:
        """Return the nonce of a chunk, and what it is bound to."""
        number = index.to_bytes(8, "big")
        return number.rjust(_NONCE_BYTES, b"\0"), framed("chunk", self._digest, number, self._count)

    def _forged(self, index: int) -> Forged:
        return Forged(
            f"chunk {index} of blob {self._digest[:16]}... was changed, or is another chunk"
        )
