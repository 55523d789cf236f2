"""The interface of codecs, and the errors of choosing one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from flmq.common.errors import UsageError
from flmq.common.typing import Parameters

__all__ = ["Buffer", "Codec", "CodecUnavailable", "UnknownCodec", "base_by_name"]

Buffer = bytes | memoryview
"""Read-only bytes; a memoryview must be of bytes and must not change while in use."""


class UnknownCodec(UsageError):
    """There is no codec of this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        """Name the requested codec and the known ones."""
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


def base_by_name(names: Sequence[str], base: Parameters) -> Sequence[Buffer]:
    """Return the base of each tensor in ``names``: that of its name, where both models have names.

    A tensor whose name the base lacks has an empty one, which `Codec` takes for none.
    """
    if not names or not base.names or tuple(names) == tuple(base.names):
        return base.tensors
    held = dict(zip(base.names, base.tensors, strict=True))
    return [held.get(name, b"") for name in names]


class Codec(ABC):
    """Compress the tensors of a model for the wire, and decompress them.

    Stateless: one instance may be used by many threads. The decoded tensors depend only on what was
    encoded and on the base: the same bits on every machine and for every version of the libraries.
    The encoded bytes may differ between versions of zstd.

    ``base`` is a model that both sides have, tensor by tensor; only the difference from it is sent.
    The caller must make sure, by its digest, that both sides use the same base: a wrong base of the
    right shapes silently gives wrong tensors.
    """

    name: str
    """The codec's name in a job's options."""
    lossless: bool
    """Whether decoding returns every tensor bit for bit."""

    @abstractmethod
    def encode(
        self, tensors: Sequence[Buffer], base: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """Encode each tensor, an ``.npy`` byte string, into opaque bytes.

        A tensor without a base of the same shape and dtype is sent whole. Bytes that are not an
        ``.npy`` byte string (a user's own tensor type) are encoded losslessly: encoding never fails
        because of what the tensors hold.
        """

    @abstractmethod
    def decode(
        self, encoded: Sequence[Buffer], base: Sequence[Buffer] | None = None, *, max_bytes: int
    ) -> list[bytes]:
        """Return the tensors that `encode` was given, from what it returned.

        The decoded size is limited to ``max_bytes``: each tensor's promised size is checked before
        anything is allocated for it, and enforced.

        Raises:
            MalformedMessage: truncated, damaged, too large, of another codec, or encoded against
                a base that was not given or has other shapes or dtypes; names the tensor.
        """
