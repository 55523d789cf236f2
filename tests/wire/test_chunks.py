"""Bodies cut into chunks and put together again, whatever comes in between."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import MalformedMessage
from flmq.wire.chunks import (
    CHUNK_BYTES,
    Assembler,
    Chunk,
    chunk_from_headers,
    chunk_headers,
    split,
)

BODY = bytes(range(256)) * 4


def assembler(
    max_bytes_per_message: int = 10_000, max_total_bytes: int = 100_000, max_open: int = 100
) -> Assembler:
    """An assembler with room enough, unless the test says otherwise."""
    return Assembler(max_bytes_per_message, max_total_bytes, max_open)


def _add_all(box: Assembler, chunks: list[Chunk]) -> None:
    for chunk in chunks:
        box.add("alice", chunk)


def assert_empty(box: Assembler) -> None:
    """Nothing is left of any body."""
    assert (box.incomplete, box.held_bytes) == (0, 0)


class TestSplit:
    @pytest.mark.parametrize(
        ("length", "sizes"),
        [(0, [0]), (1, [1]), (9, [9]), (10, [10]), (11, [10, 1]), (30, [10, 10, 10])],
    )
    def test_sizes(self, length: int, sizes: list[int]) -> None:
        chunks = split(bytes(length), chunk_bytes=10)
        assert [len(chunk.data) for chunk in chunks] == sizes
        assert [chunk.index for chunk in chunks] == list(range(len(sizes)))
        assert {(chunk.count, chunk.total_bytes) for chunk in chunks} == {(len(sizes), length)}

    def test_copies_nothing(self) -> None:
        body = bytearray(CHUNK_BYTES + 1)
        chunks = split(memoryview(body))
        body[-1] = 7
        assert bytes(chunks[1].data) == b"\x07"

    def test_refuses_chunks_of_nothing(self) -> None:
        with pytest.raises(ValueError, match="must be positive, not 0"):
            split(b"x", chunk_bytes=0)


class TestAssembler:
    @pytest.mark.parametrize("body", [b"", b"x", BODY], ids=["empty", "one byte", "long"])
    @pytest.mark.parametrize("chunk_bytes", [1, 7, 1024, 5000])
    def test_gives_the_body_with_the_last_chunk(self, body: bytes, chunk_bytes: int) -> None:
        box = assembler()
        *first, last = split(body, chunk_bytes=chunk_bytes)
        assert [box.add("alice", chunk) for chunk in first] == [None] * len(first)
        assert box.incomplete == bool(first)
        assert box.held_bytes == sum(len(chunk.data) for chunk in first)
        assert box.add("alice", last) == body
        assert_empty(box)

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=40)), unique=True),
        st.integers(1, 12),
        st.randoms(use_true_random=False),
    )
    def test_any_order_of_many_senders_with_duplicates(
        self, uploads: list[tuple[str, bytes]], chunk_bytes: int, rng: random.Random
    ) -> None:
        stream = [
            (sender, chunk)
            for sender, body in uploads
            for chunk in split(body, chunk_bytes=chunk_bytes)
        ]
        rng.shuffle(stream)
        box = assembler()
        got = []
        for position, (sender, chunk) in enumerate(stream):
            body = box.add(sender, chunk)
            if body is None:
                # What is still open may come again and changes nothing.
                assert box.add(sender, chunk) is None
                again = [item for item in stream[:position] if item[1].digest == chunk.digest]
                assert all(box.add(s, c) is None for s, c in again if s == sender)
            else:
                got.append((sender, body))
        assert sorted(got) == sorted(uploads)
        assert_empty(box)

    def test_the_same_body_of_two_senders_is_two(self) -> None:
        box = assembler()
        first, second = split(BODY, chunk_bytes=600)
        assert box.add("alice", first) is None
        assert box.add("bob", second) is None
        assert box.incomplete == 2
        assert box.add("alice", second) == BODY
        assert box.add("bob", first) == BODY

    def test_a_body_may_come_again_after_it_was_complete(self) -> None:
        box = assembler()
        for _ in range(2):
            assert [box.add("alice", chunk) for chunk in split(BODY, chunk_bytes=600)] == [
                None,
                BODY,
            ]

    def test_discard_drops_one_senders_bodies_alone(self) -> None:
        box = assembler()
        for sender, body in [("alice", BODY), ("alice", BODY + b"x"), ("bob", BODY)]:
            box.add(sender, split(body, chunk_bytes=600)[0])
        assert box.discard("alice") == 2
        assert (box.incomplete, box.held_bytes) == (1, 600)
        assert box.discard("alice") == 0
        assert box.add("bob", split(BODY, chunk_bytes=600)[1]) == BODY


def _changed(which: int, **changes: Any) -> list[Chunk]:
    """The chunks of BODY, 256 bytes each, with one of them changed."""
    chunks = split(BODY, chunk_bytes=256)
    chunks[which] = dataclasses.replace(chunks[which], **changes)
    return chunks


LIES: list[tuple[str, list[Chunk], str]] = [
    ("other count", _changed(1, count=5), "chunk 1 speaks of 5 chunks and 1024 bytes, others of 4"),
    ("other total", _changed(1, total_bytes=1025), "chunk 1 speaks of 4 chunks and 1025 bytes"),
    ("index too high", _changed(1, index=4), "chunk 4 of 4"),
    ("index negative", _changed(1, index=-1), "chunk -1 of 4"),
    ("count of zero", _changed(1, count=0), "chunk 1 of 0"),
    ("negative total", _changed(1, total_bytes=-1), "-1 bytes in 4 chunks"),
    ("more chunks than bytes", _changed(0, count=2**40), "1024 bytes in 1099511627776 chunks"),
    ("empty chunk", _changed(1, data=b""), "chunk 1 of 4 is empty"),
    ("chunk too long", _changed(3, data=bytes(257)), "more than the 1024 bytes said"),
    ("chunk too short", _changed(3, data=bytes(255)), "have 1023 bytes, 1024 were said"),
    ("damaged", _changed(2, data=bytes(256)), "do not have this digest"),
    ("no digest", _changed(1, digest="../x"), "is no digest"),
    ("oversize", _changed(0, total_bytes=10**12), "1000000000000 bytes are more than the 10000"),
]


class TestLies:
    @pytest.mark.parametrize(
        ("chunks", "words"),
        [case[1:] for case in LIES],
        ids=[case[0] for case in LIES],
    )
    def test_are_malformed_and_drop_that_body_alone(self, chunks: list[Chunk], words: str) -> None:
        box = assembler()
        box.add("bob", split(BODY, chunk_bytes=600)[0])
        with pytest.raises(MalformedMessage) as caught:
            _add_all(box, chunks)
        assert words in str(caught.value)
        assert "'alice' is dropped" in str(caught.value)
        box.discard("alice")
        assert box.add("bob", split(BODY, chunk_bytes=600)[1]) == BODY
        assert_empty(box)

    @pytest.mark.parametrize(
        "chunks",
        [chunks for name, chunks, _ in LIES if name not in ("no digest", "oversize")],
        ids=[name for name, *_ in LIES if name not in ("no digest", "oversize")],
    )
    def test_leave_nothing_behind_and_an_honest_try_succeeds(self, chunks: list[Chunk]) -> None:
        box = assembler()
        with pytest.raises(MalformedMessage):
            _add_all(box, chunks)
        assert_empty(box)
        assert [box.add("alice", chunk) for chunk in split(BODY, chunk_bytes=600)] == [None, BODY]


class TestLimits:
    def test_of_one_body(self) -> None:
        assert assembler(max_bytes_per_message=1024).add("alice", split(BODY)[0]) == BODY
        with pytest.raises(MalformedMessage, match="1024 bytes are more than the 1023 allowed"):
            assembler(max_bytes_per_message=1023).add("alice", split(BODY)[0])

    def test_of_what_is_held(self) -> None:
        box = assembler(max_total_bytes=700)
        box.add("alice", split(BODY, chunk_bytes=600)[0])
        with pytest.raises(MalformedMessage, match="600 bytes of incomplete bodies are held, 700"):
            box.add("bob", split(BODY, chunk_bytes=600)[0])
        assert (box.incomplete, box.held_bytes) == (1, 600)

    def test_of_how_many_are_open(self) -> None:
        box = assembler(max_open=1)
        first, second = split(BODY, chunk_bytes=600)
        box.add("alice", first)
        with pytest.raises(MalformedMessage, match="1 other bodies are incomplete"):
            box.add("bob", first)
        assert box.add("alice", second) == BODY
        assert box.add("bob", first) is None

    def test_a_promise_takes_no_memory(self) -> None:
        box = Assembler(2**50, 2**20, 10)
        chunk = split(BODY, chunk_bytes=600)[0]
        assert box.add("alice", dataclasses.replace(chunk, total_bytes=2**50)) is None
        assert box.held_bytes == 600


class TestHeaders:
    def test_there_and_back(self) -> None:
        for chunk in split(BODY, chunk_bytes=600):
            headers: dict[str, object] = {"other": 1, **chunk_headers(chunk)}
            assert chunk_from_headers(headers, chunk.data) == chunk

    def test_of_a_message_that_is_no_chunk(self) -> None:
        assert chunk_from_headers({"x-delivery-count": 1}, b"body") is None

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("digest", None, "digest is missing or no text"),
            ("digest", b"\x00" * 16, "digest is missing or no text"),
            ("digest", "A" * 32, "is no digest"),
            ("index", None, "index is missing or no whole number"),
            ("index", True, "index is missing or no whole number"),
            ("count", "4", "count is missing or no whole number"),
            ("total", 1024.0, "total is missing or no whole number"),
            ("index", 2, "chunk 2 of 2"),
        ],
    )
    def test_that_lie_are_malformed(self, name: str, value: object, words: str) -> None:
        chunk = split(BODY, chunk_bytes=600)[0]
        headers: dict[str, object] = dict(chunk_headers(chunk))
        if value is None:
            del headers[f"x-flmq-chunk-{name}"]
        else:
            headers[f"x-flmq-chunk-{name}"] = value
        with pytest.raises(MalformedMessage, match=words):
            chunk_from_headers(headers, chunk.data)
