"""The codec that changes nothing: what a job uses unless it asks for another."""

from __future__ import annotations

from collections.abc import Sequence

from flmq.common.errors import MalformedMessage
from flmq.wire.codecs.base import Buffer, Codec

__all__ = ["NoCodec"]


class NoCodec(Codec):
    """Hands tensors on as they are; ``bytes`` are not even copied."""

    name = "none"
    lossless = True

    def encode(
        self, tensors: Sequence[Buffer], base: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """The same bytes."""
        return [bytes(tensor) for tensor in tensors]

    def decode(
        self, encoded: Sequence[Buffer], base: Sequence[Buffer] | None = None, *, max_bytes: int
    ) -> list[bytes]:
        """The same bytes, if they are not too many. What they hold is not looked at."""
        total = sum(len(tensor) for tensor in encoded)
        if total > max_bytes:
            raise MalformedMessage(f"tensors have {total} bytes, {max_bytes} are allowed")
        return [bytes(tensor) for tensor in encoded]
