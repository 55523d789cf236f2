"""The codec that changes nothing: a job's default."""

from __future__ import annotations

from collections.abc import Sequence

from flmq.common.errors import MalformedMessage
from flmq.wire.codecs.base import Buffer, Codec

__all__ = ["NoCodec"]


class NoCodec(Codec):
    """Return tensors unchanged; ``bytes`` are not even copied."""

    name = "none"
    lossless = True

    def encode(
        self, tensors: Sequence[Buffer], base: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """Return the same bytes."""
        return [bytes(tensor) for tensor in tensors]

    def decode(
        self, encoded: Sequence[Buffer], base: Sequence[Buffer] | None = None, *, max_bytes: int
    ) -> list[bytes]:
        """Return the same bytes, if within ``max_bytes``. Their content is not checked."""
        total = sum(len(tensor) for tensor in encoded)
        if total > max_bytes:
            raise MalformedMessage(f"tensors have {total} bytes, {max_bytes} are allowed")
        return [bytes(tensor) for tensor in encoded]
