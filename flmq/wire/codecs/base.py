"""What a codec is, and what goes wrong when one is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from flmq.common.errors import UsageError

__all__ = ["Buffer", "Codec", "CodecUnavailable", "UnknownCodec"]

Buffer = bytes | memoryview
"""Bytes that are only read; a memoryview must be one of bytes and must not change while in use."""


class UnknownCodec(UsageError):
    """There is no codec of this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        """Name what was asked for and what there is."""
        self.name = name
        self.known = known
        super().__init__(f"there is no codec {name[:80]!r}: choose one of {', '.join(known)}")


class CodecUnavailable(UsageError):
    """The codec exists, but a library that it needs is not installed."""

    def __init__(self, name: str, library: str) -> None:
        """Name the codec and the library."""
        self.name = name
        self.library = library
        super().__init__(
            f"codec {name!r} needs the library {library!r}, which is not installed here: run "
            "pip install 'flmq[compression]', or let the job use the codec 'none'"
        )


class Codec(ABC):
    """Makes the tensors of a model smaller for the wire, and brings them back.

    Pure and without state: one instance may be used by many threads. What is decoded depends on
    nothing but what was encoded and the base: the same bits on every machine and for every
    version of the libraries. The encoded bytes themselves may differ between versions of zstd.

    ``base`` is the model that both sides have, tensor by tensor; what is sent is then the
    difference. It is the caller's to see that both sides mean the same model, by its digest:
    a wrong base of the right shapes gives wrong tensors, in silence.
    """

    name: str
    """What a job calls it."""
    lossless: bool
    """Whether what is decoded is bit for bit what was encoded, for every tensor."""

    @abstractmethod
    def encode(
        self, tensors: Sequence[Buffer], base: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """Encode each tensor, an ``.npy`` byte string, into opaque bytes.

        A tensor whose shape or dtype is not that of its base, or that has none, is sent whole.
        Bytes that are no ``.npy`` byte string (of a user's own tensor type) are kept as they
        are, without loss: this never fails on account of what the tensors hold.
        """

    @abstractmethod
    def decode(
        self, encoded: Sequence[Buffer], base: Sequence[Buffer] | None = None, *, max_bytes: int
    ) -> list[bytes]:
        """Bring back the tensors that `encode` was given, from what it returned.

        At most ``max_bytes`` bytes of tensors: this is checked against what each tensor's encoding
        promises before anything is allocated for it, and the promise is held to.

        Raises:
            MalformedMessage: truncated, damaged, too large, of another codec, or encoded against
                a base that was not given or has other shapes or dtypes; names the tensor.
        """
