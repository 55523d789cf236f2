"""Compression of model updates on the wire: pure functions from tensors to bytes and back.

Off ("none") unless a job asks for one of ``CODECS``. All but "none" need the extra
``flmq[compression]``.
"""

from __future__ import annotations

from importlib import import_module

from flmq.wire.codecs.base import (
    Buffer,
    Codec,
    CodecUnavailable,
    UnknownCodec,
    base_by_name,
)
from flmq.wire.codecs.none import NoCodec

__all__ = [
    "CODECS",
    "Buffer",
    "Codec",
    "CodecUnavailable",
    "UnknownCodec",
    "base_by_name",
    "get_codec",
]

CODECS: tuple[str, ...] = ("none", "zstd", "fp16", "bf16", "int8")
"""Names that `get_codec` accepts.

- "none": tensors as they are.
- "zstd": lossless.
- "fp16": 11 significant bits of each difference from the base.
- "bf16": 8 significant bits of each difference.
- "int8": an error of at most 1/253 of the largest difference among 1024 neighbours.

The schemes in ``flmq.wire.codecs.lossy`` give the exact bounds.
"""


def get_codec(name: str) -> Codec:
    """Return the codec called ``name``.

    Raises:
        UnknownCodec: there is no such codec.
        CodecUnavailable: a library that it needs is not installed.
    """
    if name not in CODECS:
        raise UnknownCodec(name, CODECS)
    if name == "none":
        return NoCodec()
    try:
        import_module("zstandard")
    except ImportError as error:
        raise CodecUnavailable(name, "zstandard") from error
    # Imported only here, as the library is optional.
    from flmq.wire.codecs.blockwise import BlockwiseCodec
    from flmq.wire.codecs.lossy import BFloat16, Float16, Int8
    from flmq.wire.codecs.scheme import Lossless, Scheme

    schemes: dict[str, Scheme] = {
        "zstd": Lossless(),
        "fp16": Float16(),
        "bf16": BFloat16(),
        "int8": Int8(),
    }
    return BlockwiseCodec(name, schemes[name])
