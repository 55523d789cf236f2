"""Tensors: ``.npy`` bytes, encoded tensors, blobs in chunks, accumulators of partial sums."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from flmq.aggregation import MeanAccumulator
from flmq.common.errors import MalformedMessage, PeerError, StoredDataError, ZeroWeight
from flmq.common.parameter import TensorSpec, bytes_to_ndarray, ndarray_to_bytes, tensor_spec
from flmq.common.typing import Code, FitRes, Parameters, Status
from flmq.server.replies.uploads import Uploads
from flmq.server.strategy.combine import WeightedMean
from flmq.wire import BlobRef, Reply, iter_chunks, refer, upload_name
from flmq.wire.codecs import CODECS, get_codec
from tests.fuzz.harness import Target
from tests.fuzz.values import INTEGERS, TEXTS, mutated_bytes
from tests.wire.cases import reply

__all__ = ["tensor_targets"]

_MAX_BYTES = 1 << 20
_SUM_ERRORS = (StoredDataError, ZeroWeight)
_DESCRS = (
    *("<f4", ">f8", "|b1", "<c16", "<f2", "bfloat16", "float8_e4m3fn", "|O", "<U9", "|V8", "<f16"),
    *("<f99", "f4", "<M8[ns]", "<f4, <i4", "[('a', '<f4')]", "object", "<i0", "<f3", "float8_x"),
    *("", ",f8", "(2,)f4"),
)
_SHAPES = (
    *("()", "(3,)", "(2, 3)", "(0,)", "(0, 9223372036854775807)", "(-1,)", "(-1, -4)", "(1,) * 9"),
    *("(4294967296, 4294967296)", "(9223372036854775807, 3)", "(18446744073709551616,)", "(2 3)"),
    *(f"({', '.join(['1'] * 64)})", f"({', '.join(['1'] * 65)})", f"({', '.join(['1'] * 3000)},)"),
    *("3", "(3.0,)", "None", "(True,)", "(٣,)", f"({'9' * 5000},)"),
)


def tensor_targets(folder: Path) -> list[Target]:
    """Return the targets of all that holds numbers; uploads are spooled below ``folder``."""
    rng = np.random.default_rng(1)
    base = [ndarray_to_bytes(rng.normal(size=300).astype(np.float32))]
    arrays: list[object] = [
        np.float32(1.5),
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 3)),
        np.array([True, False]),
        np.array([3, -7], np.int16),
        rng.normal(size=300).astype(np.float32),
    ]
    npys = [ndarray_to_bytes(np.asarray(each)) for each in arrays]
    targets = [Target("npy", npys, _read_npy, (MalformedMessage,), _npy_mutated, weight=6.0)]
    for name in CODECS[1:]:
        codec = get_codec(name)
        seeds = [codec.encode([one], base)[0] for one in npys] + [codec.encode([npys[-1]])[0]]

        def read(data: bytes, name: str = name) -> object:
            return get_codec(name).decode([data], base, max_bytes=_MAX_BYTES)

        targets.append(
            Target(f"codec {name}", seeds, read, (MalformedMessage,), _record_mutated, weight=2.0)
        )
    sums = [_accumulator([npys[place]], weight) for place in (1, 5, 6) for weight in (7, 2**60)]
    targets.append(Target("accumulator", sums, _read_sum, _SUM_ERRORS, _sum_mutated, weight=2.0))
    targets.append(
        Target(
            "upload",
            [b""],
            _Uploading(folder),
            (PeerError,),
            lambda rng, _: rng.randbytes(8),
            are_valid=False,
        )
    )
    return targets


def _read_npy(data: bytes) -> None:
    spec = tensor_spec(data)
    array = bytes_to_ndarray(data)
    assert TensorSpec.of(array) == spec
    str(spec)


def _npy_mutated(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.4:
        return mutated_bytes(rng, data)
    size = int.from_bytes(data[8:10], "little")
    values = data[10 + size :]
    header = (
        f"{{'descr': '{rng.choice(_DESCRS)}', 'fortran_order': {rng.choice(('True', 'False', '1'))}"
        f", 'shape': {rng.choice(_SHAPES)}, }}"
    ).encode()
    if rng.random() < 0.2:
        header = mutated_bytes(rng, header)
    version = rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\0\0"))
    length = len(header) if rng.random() < 0.8 else rng.choice(INTEGERS)
    width = 4 if version == b"\2\0" else 2
    packed = struct.pack("<Q", length & (2**64 - 1))[:width]
    return data[:6] + version + packed + header + rng.choice((values, b"", values[:8], bytes(24)))


def _record_mutated(rng: random.Random, data: bytes) -> bytes:
    """Change an encoded tensor, mostly with a check sum that is right again."""
    if rng.random() < 0.2:
        return mutated_bytes(rng, data)
    head, rest = bytearray(data[:14]), data[18:]
    if rng.random() < 0.6:
        match rng.randrange(5):
            case 0:
                head[1] = rng.randrange(6)
            case 1:
                head[2] = rng.randrange(32)
            case 2:
                head[3] = rng.choice((0, 1, 2, 3, 4, 8, 255))
            case 3:
                head[4:12] = struct.pack("<Q", rng.choice(INTEGERS) & (2**64 - 1))
            case 4:
                head[12:14] = struct.pack("<H", rng.choice(INTEGERS) & 65535)
    if rng.random() < 0.6:
        rest = mutated_bytes(rng, rest)
    crc = zlib.crc32(rest, zlib.crc32(head))
    return bytes(head) + struct.pack("<I", crc) + rest


def _accumulator(tensors: list[bytes], examples: int = 7) -> bytes:
    mean = WeightedMean()
    parameters = Parameters(tensors, "numpy.ndarray")
    mean.add("alice", FitRes(Status(Code.OK, ""), parameters, examples, {}))
    return b"".join(mean.to_pieces())


def _read_sum(data: bytes) -> None:
    mean = MeanAccumulator.from_bytes(data)
    with np.errstate(all="ignore"):  # sums may be of any size
        mean.finish()


def _sum_mutated(rng: random.Random, data: bytes) -> bytes:
    body = mutated_bytes(rng, data[:-4])
    if rng.random() < 0.1:
        return body + data[-4:]
    return body + struct.pack("<I", zlib.crc32(body))


class _Uploading:
    """Plays a few uploads at once, whose senders lie about everything."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def __call__(self, data: bytes) -> None:
        rng = random.Random(data)
        uploads = Uploads(self._folder, None, codec=rng.choice(("", "zstd")))
        try:
            for _ in range(rng.randrange(1, 6)):
                self._one(rng, uploads)
        finally:
            uploads.close()

    def _one(self, rng: random.Random, uploads: Uploads) -> None:
        parameters = Parameters([rng.randbytes(rng.randrange(1, 200))], "numpy.ndarray")
        ref = refer(parameters, chunk_bytes=rng.choice((1, 7, 100, 4 << 20)))
        lied = _lied(rng, ref)
        announced: Reply = replace(
            reply(FitRes(Status(Code.OK, ""), Parameters([], "numpy.ndarray"), 1, {})),
            task_id=rng.choice("abc"),
            client_id=rng.choice(("alice", "bob")),
            blob=lied,
        )
        try:
            lied.check()
        except ValueError as error:
            raise MalformedMessage(str(error)) from error
        chunks = [(index, bytes(data)) for index, data in iter_chunks(ref, parameters.tensors)]
        rng.shuffle(chunks)
        name = upload_name(announced.task_id, rng.choice((ref, lied)))
        if rng.random() < 0.3:
            for index, data in chunks:
                uploads.hold(name, index, data)
        uploads.begin(announced, lied, 100, rng.choice((None, 0, 200)))
        for index, data in chunks:
            lie = rng.choice((0, 0, 0, 1, -1)), rng.choice((data, data, data, data[1:], b""))
            uploads.add(name, index + lie[0], lie[1])


def _lied(rng: random.Random, ref: BlobRef) -> BlobRef:
    lies: tuple[Callable[[], BlobRef], ...] = (
        lambda: ref,
        lambda: replace(ref, digest=rng.choice(("a" * 64, "", "A" * 64))),
        lambda: replace(ref, lengths=(*ref.lengths, rng.choice(INTEGERS))),
        lambda: replace(ref, lengths=(60 << 30,)),
        lambda: replace(ref, lengths=(0,) * 1000 + ref.lengths),
        lambda: replace(ref, chunk_bytes=rng.choice((0, 1, 5 << 20, 2**32 - 1))),
        lambda: replace(ref, codec=rng.choice(("zstd", "int8", "no such")), base="b" * 64),
        lambda: replace(ref, names=(rng.choice(TEXTS).decode(errors="replace"),)),
        lambda: replace(ref, published_unix_ms=rng.choice(INTEGERS)),
    )
    return rng.choice(lies)()
