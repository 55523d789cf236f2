"""The codecs that write tensors block by block: one class, parametrized by a scheme."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flmq.common.errors import MalformedMessage
from flmq.common.parameter import TensorSpec, tensor_spec
from flmq.common.typing import NDArray
from flmq.wire.codecs.base import Buffer, Codec
from flmq.wire.codecs.blocks import pack_blocks, unpack_blocks
from flmq.wire.codecs.record import Flags, Head, read_record, write_record
from flmq.wire.codecs.scheme import Lossless, Scheme
from flmq.wire.codecs.tensors import Tensor, open_tensor, word_dtype

__all__ = ["BlockwiseCodec"]

_LOSSLESS = Lossless()


class BlockwiseCodec(Codec):
    """Encode float32 and float64 tensors by its scheme, and all others losslessly.

    bfloat16 and float8 are among the others: updates of theirs are a few units in the last place,
    of which the lossless scheme leaves about as little as a lossy one would.

    A tensor that the scheme does not accept, such as one with NaN, is encoded losslessly too; the
    encoding says so.
    """

    def __init__(self, name: str, scheme: Scheme) -> None:
        """Create the codec called ``name`` that writes by ``scheme``."""
        self.name = name
        self.lossless = isinstance(scheme, Lossless)
        self._scheme = scheme

    def encode(
        self, tensors: Sequence[Buffer], base: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """Encode as `Codec.encode` specifies."""
        bases = () if base is None else base
        with np.errstate(all="ignore"):
            return [self._encode(tensor, _at(bases, i)) for i, tensor in enumerate(tensors)]

    def decode(
        self, encoded: Sequence[Buffer], base: Sequence[Buffer] | None = None, *, max_bytes: int
    ) -> list[bytes]:
        """Decode as `Codec.decode` specifies."""
        bases = () if base is None else base
        tensors: list[bytes] = []
        for index, record in enumerate(encoded):
            try:
                # Numbers forged by a peer may overflow; the model's own checks find them.
                with np.errstate(all="ignore"):
                    tensor = self._decode(record, _at(bases, index), max_bytes)
            except MalformedMessage as error:
                raise MalformedMessage(f"encoded tensor {index}: {error}") from error
            max_bytes -= len(tensor)
            tensors.append(tensor)
        return tensors

    def _encode(self, buffer: Buffer, base_buffer: Buffer | None) -> bytes:
        tensor = open_tensor(buffer)
        base = None if base_buffer is None else open_tensor(base_buffer)
        if base is not None and not tensor.has_form_of(base):
            base = None
        base_words = None if base is None else base.words_in_order(tensor.fortran)
        scheme = self._scheme if tensor.floating else _LOSSLESS
        if not scheme.accepts(tensor.words, base_words):
            scheme = _LOSSLESS
        head = _head(tensor, base, scheme.code)
        return write_record(head, pack_blocks(tensor.words, base_words, scheme))

    def _decode(self, record: Buffer, base_buffer: Buffer | None, max_bytes: int) -> bytes:
        head, blocks = read_record(record)
        scheme = self._scheme_of(head)
        base = None
        if Flags.DELTA in head.flags:
            if base_buffer is None:
                raise MalformedMessage("it is a difference to a base that is not given")
            base = open_tensor(base_buffer)
        header = head.header
        if base is not None and Flags.BASE_HEADER in head.flags:
            header = base.header
        if len(header) + head.values_bytes > max_bytes:
            raise MalformedMessage(
                f"it promises {len(header) + head.values_bytes} bytes, {max_bytes} are allowed"
            )
        base_words = None if base is None else _base_words(base, head)
        dtype = word_dtype(head.width, Flags.BIG_ENDIAN in head.flags)
        words = unpack_blocks(blocks, head.count, base_words, scheme, dtype)
        tensor = b"".join((header, words.view(np.uint8).data))
        _check_form(tensor, header, base)
        return tensor

    def _scheme_of(self, head: Head) -> Scheme:
        """Return the scheme that was used; a lossy one only if it is this codec's own."""
        if head.code == _LOSSLESS.code:
            return _LOSSLESS
        if head.code != self._scheme.code:
            raise MalformedMessage(
                f"scheme {head.code} is not one of codec {self.name!r}: both sides must use the "
                "codec of the job"
            )
        if head.width not in (4, 8):
            raise MalformedMessage(f"a lossy scheme on words of {head.width} bytes")
        return self._scheme


def _at(buffers: Sequence[Buffer], index: int) -> Buffer | None:
    return buffers[index] if index < len(buffers) else None


def _head(tensor: Tensor, base: Tensor | None, code: int) -> Head:
    """Return the head of a tensor that is written by scheme ``code``."""
    flags = Flags(0)
    header = tensor.header
    if base is not None:
        flags |= Flags.DELTA
        if base.header == header:
            flags |= Flags.BASE_HEADER
            header = b""
    if tensor.fortran:
        flags |= Flags.FORTRAN
    words = tensor.words
    if words.dtype == word_dtype(words.dtype.itemsize, True) and words.dtype.itemsize > 1:
        flags |= Flags.BIG_ENDIAN
    return Head(code, flags, words.dtype.itemsize, words.nbytes, header)


def _base_words(base: Tensor, head: Head) -> NDArray:
    """Return the words to which the differences are added."""
    if base.array is None:
        raise MalformedMessage("it is a difference to a base that is no .npy byte string")
    words = base.words_in_order(Flags.FORTRAN in head.flags)
    dtype = word_dtype(head.width, Flags.BIG_ENDIAN in head.flags)
    if words.dtype != dtype or len(words) != head.count:
        raise MalformedMessage(
            f"it is a difference to {head.count} words of {dtype}, the base has {len(words)} of "
            f"{words.dtype}"
        )
    return words


def _check_form(tensor: bytes, header: bytes, base: Tensor | None) -> None:
    """Check that an ``.npy`` header matches what follows it, and the base's shape and dtype."""
    if not header and base is None:
        return
    spec = tensor_spec(tensor)
    if base is not None and base.array is not None:
        form = TensorSpec(base.array.shape, base.array.dtype)
        if spec != form:
            raise MalformedMessage(f"it has the form {spec}, its base {form}")
