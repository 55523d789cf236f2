"""Blobs: cut into chunks, put together again in any order, and never believed."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.common import Code, FitIns, FitRes, Parameters, Status
from flmq.common.errors import MalformedMessage
from flmq.common.phase import Phase
from flmq.wire import Reply, Task, decode, encode
from flmq.wire.blobs import (
    BLOB_CHUNK_BYTES,
    MAX_BLOB_BYTES,
    MAX_BLOB_CHUNKS,
    MAX_CHUNK_BYTES,
    BlobProgress,
    BlobRef,
    blob_chunk_headers,
    blob_chunk_of,
    iter_chunks,
    refer,
    tensors_of,
)

DIGEST = "0" * 64
KIND = "numpy.ndarray"
OK = Status(Code.OK, "")


def of(*tensors: bytes | memoryview, chunk_bytes: int = 10) -> tuple[BlobRef, Parameters]:
    parameters = Parameters(list(tensors), KIND)  # type: ignore[arg-type]
    return refer(parameters, chunk_bytes=chunk_bytes), parameters


def collect(ref: BlobRef, chunks: list[tuple[int, Any]]) -> bytearray:
    """Take chunks in as a reader does."""
    blob, progress = bytearray(ref.total), BlobProgress(ref)
    for index, data in chunks:
        taken = progress.take(index, data)
        if taken is not None:
            start, plain = taken
            blob[start : start + len(plain)] = plain
    assert progress.complete
    progress.finish(blob)
    return blob


# -- there and back


@given(
    tensors=st.lists(st.binary(max_size=60), min_size=1, max_size=8),
    chunk_bytes=st.integers(1, 40),
    seed=st.integers(0, 2**16),
)
def test_any_order_with_duplicates_gives_the_tensors_back(
    tensors: list[bytes], chunk_bytes: int, seed: int
) -> None:
    ref, parameters = of(*tensors, chunk_bytes=chunk_bytes)
    chunks = list(iter_chunks(ref, parameters.tensors))
    assert [len(data) for _, data in chunks] == [
        end - start for start, end in map(ref.chunk_range, range(ref.count))
    ]
    rng = random.Random(seed)
    chunks += rng.choices(chunks, k=rng.randrange(4)) if chunks else []
    rng.shuffle(chunks)
    blob = collect(ref, chunks)
    assert [bytes(tensor) for tensor in tensors_of(ref, blob)] == tensors


@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.binary(max_size=30), max_size=6))
def test_no_two_models_have_one_digest(one: list[bytes], other: list[bytes]) -> None:
    """Also where their concatenations are equal: the lengths are part of what is hashed."""
    assert (of(*one)[0].digest == of(*other)[0].digest) == (one == other)
    assert (
        refer(Parameters(one, "a")).digest != refer(Parameters(one, "b")).digest  # nor another type
    )


def test_the_digest_is_of_what_the_schema_says() -> None:
    ref, _ = of(b"abc", b"", b"d")
    numbers = b"".join(n.to_bytes(8, "big") for n in (3, 3, 0, 1))
    outline = b"flmq blob 1\0" + (13).to_bytes(4, "big") + b"numpy.ndarray" + numbers
    assert ref.digest == blake3(outline + b"abcd").hexdigest()


@pytest.mark.parametrize(
    ("tensors", "cut"),
    [
        ([b"0123456789"], [b"0123456789"]),
        ([b"01234567890"], [b"0123456789", b"0"]),
        ([b"0123456789", b"abc"], [b"0123456789", b"abc"]),
        ([b"01234", b"56789abc"], [b"0123456789", b"abc"]),
        ([b"", b"0123456789", b""], [b"0123456789"]),
        ([b"0123456789", b"", b"", b"a"], [b"0123456789", b"a"]),
        ([b"0", b"1", b"2", b"", b"3"], [b"0123"]),
        ([b"0" * 25, b"1" * 5], [b"0" * 10, b"0" * 10, b"0" * 5 + b"1" * 5]),
    ],
)
def test_chunks_end_inside_and_between_tensors(tensors: list[bytes], cut: list[bytes]) -> None:
    ref, parameters = of(*tensors)
    chunks = list(iter_chunks(ref, parameters.tensors))
    assert [bytes(data) for _, data in chunks] == cut
    assert [index for index, _ in chunks] == list(range(len(cut)))
    assert [bytes(tensor) for tensor in tensors_of(ref, collect(ref, chunks))] == tensors


def test_nothing_is_copied_within_a_tensor() -> None:
    tensor = bytearray(25)
    ref, parameters = of(memoryview(tensor))
    chunks = dict(iter_chunks(ref, parameters.tensors))
    tensor[12] = 7
    assert bytes(chunks[1]) == bytes([0, 0, 7, 0, 0, 0, 0, 0, 0, 0])


def test_views_of_wider_items_count_in_bytes() -> None:
    array = np.arange(7, dtype=np.float64)
    ref, parameters = of(array.data)
    assert ref.lengths == (56,)
    assert ref.digest == of(array.tobytes())[0].digest
    blob = collect(ref, list(iter_chunks(ref, parameters.tensors)))
    assert bytes(tensors_of(ref, blob)[0]) == array.tobytes()


def test_nobody_can_change_a_blob_through_its_tensors() -> None:
    ref, _ = of(b"abc", b"d")
    for tensor in tensors_of(ref, bytearray(b"abcd")):
        assert tensor.readonly


def test_chunks_of_nothing() -> None:
    for parameters in (Parameters([], KIND), Parameters([b"", b""], KIND)):
        ref = refer(parameters)
        assert (ref.total, ref.count) == (0, 0)
        assert list(iter_chunks(ref, parameters.tensors)) == []
        with pytest.raises(ValueError, match="not empty"):
            ref.check()


# -- what a reference may say


def test_what_is_referred_to_can_be_a_blob() -> None:
    ref, _ = of(b"abc", b"")
    ref.check()
    replace(ref, base="f" * 64, codec="zstd", chunk_bytes=MAX_CHUNK_BYTES).check()
    replace(ref, lengths=(MAX_BLOB_BYTES,), chunk_bytes=BLOB_CHUNK_BYTES).check()


BAD_REFS = {
    "digest '' is not 64": {"digest": ""},
    "digest 'abc' is not 64": {"digest": "abc"},
    "is not 64 hexadecimal": {"digest": "g" * 64},
    "is not 64 hexadecimal digits": {"digest": "A" * 64},
    "base 'x' is not": {"base": "x"},
    "chunks of 0 bytes": {"chunk_bytes": 0},
    "chunks of -1 bytes": {"chunk_bytes": -1},
    f"chunks of {MAX_CHUNK_BYTES + 1} bytes": {"chunk_bytes": MAX_CHUNK_BYTES + 1},
    "a blob of 0 tensors and 0 bytes": {"lengths": ()},
    "a blob of 2 tensors and 0 bytes": {"lengths": (0, 0)},
    f"{MAX_BLOB_BYTES + 1} bytes": {"lengths": (MAX_BLOB_BYTES, 1)},
    "and -5 bytes": {"lengths": (-5,)},
    "a tensor of -5 bytes": {"lengths": (10, -5)},
    "a blob of 1048577 tensors": {"lengths": (1,) * (2**20 + 1)},
    f"a blob of {MAX_BLOB_CHUNKS + 1} chunks": {"lengths": (MAX_BLOB_CHUNKS + 1,)},
}


@pytest.mark.parametrize("words", BAD_REFS)
def test_what_cannot_be_a_blob_is_refused(words: str) -> None:
    ref = BlobRef(DIGEST, KIND, (1,), chunk_bytes=1)
    with pytest.raises(ValueError, match=words):
        replace(ref, **BAD_REFS[words]).check()  # type: ignore[arg-type]


@pytest.mark.parametrize("words", BAD_REFS)
def test_an_envelope_with_such_a_reference_is_not_sent(words: str) -> None:
    good = BlobRef(DIGEST, KIND, (1,), chunk_bytes=1)
    bad = replace(good, **BAD_REFS[words])  # type: ignore[arg-type]
    none = Parameters([], KIND)
    task = Task("t", "j", 1, Phase.FIT, "c", 1, b"n", FitIns(none, {}))
    reply = Reply("t", "j", 1, Phase.FIT, "c", 1, b"n", 0.0, FitRes(OK, none, 1, {}))
    for body, broken in (
        (replace(task, model=good), replace(task, model=bad)),
        (replace(reply, blob=good), replace(reply, blob=bad)),
    ):
        assert decode(encode(body)) == body
        with pytest.raises(ValueError, match=words):
            encode(broken)


# -- what chunks may say


@pytest.mark.parametrize("index", [-1, -2, 3, 4, 2**40, 2**63])
def test_there_is_no_such_chunk(index: int) -> None:
    progress = BlobProgress(of(b"x" * 30)[0])
    with pytest.raises(MalformedMessage, match="of a blob of 3 chunks"):
        progress.take(index, b"x" * 10)


@pytest.mark.parametrize(("index", "length"), [(0, 0), (0, 9), (0, 11), (2, 10), (2, 4), (1, 5)])
def test_a_chunk_of_another_length(index: int, length: int) -> None:
    progress = BlobProgress(of(b"x" * 25)[0])
    with pytest.raises(MalformedMessage, match=f"chunk {index} has {length} bytes, not"):
        progress.take(index, bytes(length))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]])
def test_other_bytes_are_noticed_in_any_order(order: list[int]) -> None:
    ref, parameters = of(b"a" * 10, b"b" * 15)
    chunks = dict(iter_chunks(ref, parameters.tensors))
    chunks[1] = b"b" * 9 + b"!"
    with pytest.raises(MalformedMessage, match=f"not {ref.digest[:16]}"):
        collect(ref, [(index, chunks[index]) for index in order])


def test_lying_lengths_are_noticed() -> None:
    """The same bytes, otherwise divided, are another blob."""
    ref, parameters = of(b"a" * 10, b"b" * 10)
    lying = replace(ref, lengths=(12, 8))
    with pytest.raises(MalformedMessage, match="as stated"):
        collect(lying, list(iter_chunks(ref, parameters.tensors)))


# -- encrypted


def sealed(ref: BlobRef) -> BlobRef:
    return replace(ref, key=b"k" * 32)


@given(
    tensors=st.lists(st.binary(max_size=60), min_size=1, max_size=8).filter(any),
    chunk_bytes=st.integers(1, 40),
    backwards=st.booleans(),
)
def test_encrypted_chunks_are_read_as_what_they_were(
    tensors: list[bytes], chunk_bytes: int, backwards: bool
) -> None:
    plain, parameters = of(*tensors, chunk_bytes=chunk_bytes)
    ref = sealed(plain)
    chunks = list(iter_chunks(ref, parameters.tensors))
    assert all(len(data) <= chunk_bytes + 16 for _, data in chunks)
    blob = collect(ref, chunks[::-1] if backwards else chunks)
    assert blob == b"".join(tensors)
    in_place, progress = bytearray(ref.total), BlobProgress(ref)
    for index, data in chunks:
        progress.take(index, data, memoryview(in_place))
    progress.finish(in_place)
    assert in_place == blob


def test_a_chunk_that_was_changed_leaves_its_place_to_the_right_one() -> None:
    plain, parameters = of(b"a" * 10, b"b" * 15)
    ref = sealed(plain)
    chunks = dict(iter_chunks(ref, parameters.tensors))
    blob, progress = bytearray(ref.total), BlobProgress(ref)
    forged = bytearray(chunks[1])
    forged[3] ^= 1
    for index, data in (
        (0, chunks[1]),
        (1, bytes(forged)),
        (2, bytes(chunks[2]) + b"x"),
        (1, b"a" * 10),
    ):
        with pytest.raises(MalformedMessage, match=f"chunk {index}"):
            progress.take(index, data, memoryview(blob))
    assert progress.received == 0
    for index in (2, 1, 0):
        assert progress.take(index, chunks[index], memoryview(blob)) is not None
    with pytest.raises(MalformedMessage):  # and what came is not overwritten
        progress.take(5, bytes(forged), memoryview(blob))
    assert progress.take(1, bytes(forged), memoryview(blob)) is None
    progress.finish(blob)
    assert blob == b"a" * 10 + b"b" * 15


def test_plain_chunks_of_an_encrypted_blob_are_refused() -> None:
    plain, parameters = of(b"a" * 25)
    progress = BlobProgress(sealed(plain))
    for index, data in iter_chunks(plain, parameters.tensors):
        with pytest.raises(MalformedMessage):
            progress.take(index, data)


def test_a_content_key_is_in_no_text() -> None:
    ref = sealed(of(b"x")[0])
    assert "key" not in repr(ref)
    with pytest.raises(ValueError, match="31 bytes"):
        replace(ref, key=bytes(31)).check()


def test_a_chunk_that_is_missing_is_missed() -> None:
    progress = BlobProgress(of(b"x" * 30)[0])
    assert [progress.take(index, b"x" * 10) for index in (2, 2, 0, 2)] == [
        (20, b"x" * 10),
        None,
        (0, b"x" * 10),
        None,
    ]
    assert not progress.complete


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.one_of(st.integers(-5, 5), st.integers()), st.integers(0, 12)), max_size=12
    )
)
def test_no_chunk_is_put_outside_its_blob(chunks: list[tuple[int, int]]) -> None:
    ref, _ = of(b"x" * 25)
    progress = BlobProgress(ref)
    taken = set()
    for index, length in chunks:
        try:
            took = progress.take(index, bytes(length))
        except MalformedMessage:
            continue
        if took is not None:
            start, _ = took
            assert index not in taken
            assert start >= 0
            assert start + length <= ref.total
        taken.add(index)
    assert progress.complete == (taken == {0, 1, 2})


# -- their headers


def test_headers_there_and_back() -> None:
    piece = blob_chunk_of(blob_chunk_headers("task-1", 7), b"data")
    assert piece is not None
    assert (piece.name, piece.index, piece.data) == ("task-1", 7, b"data")


def test_what_says_nothing_of_a_blob_is_no_chunk() -> None:
    assert blob_chunk_of({}, b"data") is None
    assert blob_chunk_of({"x-flmq-blob-index": 1}, b"data") is None


@pytest.mark.parametrize(
    "headers",
    [
        {"x-flmq-blob": "t"},
        {"x-flmq-blob": "t", "x-flmq-blob-index": None},
        {"x-flmq-blob": "t", "x-flmq-blob-index": True},
        {"x-flmq-blob": "t", "x-flmq-blob-index": "1"},
        {"x-flmq-blob": "t", "x-flmq-blob-index": b"1"},
        {"x-flmq-blob": "t", "x-flmq-blob-index": 1.0},
        {"x-flmq-blob": "t", "x-flmq-blob-index": -1},
        {"x-flmq-blob": "t", "x-flmq-blob-index": 2**62},
        {"x-flmq-blob": "", "x-flmq-blob-index": 0},
        {"x-flmq-blob": "t" * 97, "x-flmq-blob-index": 0},
        {"x-flmq-blob": b"t", "x-flmq-blob-index": 0},
        {"x-flmq-blob": 7, "x-flmq-blob-index": 0},
    ],
)
def test_headers_that_do_not_describe_a_chunk(headers: dict[str, object]) -> None:
    with pytest.raises(MalformedMessage):
        blob_chunk_of(headers, b"data")
