"""A few megabytes that would become gigabytes, or minutes: refused before they are."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest

from flmq.common.errors import MalformedMessage
from flmq.common.typing import Code, FitRes, Parameters, Status
from flmq.server.strategy.reply_check import ParametersSpec, ReplyCheck, check_fit_reply
from flmq.wire import BlobProgress, BlobRef, decode, encode
from flmq.wire.entries import read_entries
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from tests.fuzz.harness import Report, Target, measured
from tests.fuzz.protobufs import length_delimited, varint
from tests.wire.cases import BODIES, exact

HEAD = pb.Envelope(schema_major=1, schema_minor=4).SerializeToString()
_GROUP = varint(1000 << 3 | 3) + varint(1000 << 3 | 4)
"""An unknown group of nothing: every decoder skips it."""
_MANY = 2_000_000
_FIT, _REPLY, _PRESENCE, _REPORT = 9, 5, 7, 15
_STATUS = length_delimited(1, b"\x08\x01")


def _keys(number: int) -> bytes:
    return b"".join(
        length_delimited(number, length_delimited(1, key.to_bytes(3, "big").hex().encode()))
        for key in range(400_000)
    )


def _deep(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = length_delimited(5, data)
    return data


def _blob(lengths: bytes) -> bytes:
    whole = length_delimited(1, b"a" * 64) + length_delimited(3, lengths) + b"\x20\x01"
    return length_delimited(15, whole)


BOMBS: dict[str, Callable[[], bytes]] = {
    "empty metrics": lambda: length_delimited(_REPLY, length_delimited(_FIT, b"\x22\0" * _MANY)),
    "a million keys": lambda: length_delimited(_REPLY, length_delimited(_FIT, _keys(4))),
    "empty tensors": lambda: length_delimited(
        _REPLY, length_delimited(_FIT, length_delimited(2, b"\x12\0" * _MANY))
    ),
    "empty names": lambda: length_delimited(
        _REPLY, length_delimited(_FIT, length_delimited(2, b"\x1a\0" * _MANY))
    ),
    "lengths of a blob": lambda: length_delimited(_REPLY, _blob(b"\x01" * 7_000_000)),
    "properties": lambda: length_delimited(_PRESENCE, _keys(5)),
    "companions": lambda: length_delimited(_PRESENCE, b"\x4a\0" * _MANY),
    "orders in hand": lambda: length_delimited(_REPORT, b"\x22\0" * _MANY),
    "sites": lambda: length_delimited(_REPORT, b"\x1a\0" * _MANY),
    "unknown fields": lambda: b"\xc2\x3e\0" * _MANY,
    "nested in itself": lambda: _deep(100_000),
    "one message": lambda: length_delimited(_REPLY, bytes(60 << 20)),
}


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "behind groups"])
@pytest.mark.parametrize("name", BOMBS)
def test_an_envelope_is_refused_in_little_time_and_memory(name: str, hidden: bool) -> None:
    body = BOMBS[name]()
    data = HEAD + (_GROUP * 3 if hidden else b"") + body
    if hidden and name == "empty metrics":  # at every depth
        inner = _GROUP + length_delimited(_FIT, _GROUP + b"\x22\0" * _MANY)
        data = HEAD + _GROUP + length_delimited(_REPLY, inner)
    report = Report()
    bomb = Target(name, [data], decode, (MalformedMessage,), lambda rng, data: data)
    assert measured(bomb, data, report) is None
    assert report.refused(name) == 1
    assert report.largest[0] < 48 << 20
    assert report.slowest[0] < 1.0


def test_groups_that_nobody_knows_are_passed_over() -> None:
    """A decoder skips them, so that a message with some is read: counted, they are no way in."""
    for body in BODIES.values():
        assert exact(decode(encode(body) + _GROUP)) == exact(body)


def test_a_chunk_costs_no_more_where_there_are_many_tensors() -> None:
    ref = BlobRef("a" * 64, "numpy.ndarray", (1,) * 100_000, chunk_bytes=1)
    progress = BlobProgress(ref)
    begun = time.process_time()
    for index in range(10_000):
        progress.take(index, b"x")
    assert time.process_time() - begun < 2.0


def test_a_million_tensors_are_not_announced() -> None:
    with pytest.raises(ValueError, match="at most 131072"):
        BlobRef("a" * 64, "numpy.ndarray", (1,) * 1_000_000).check()


def test_60_gib_of_one_chunk_each_byte_are_not_announced() -> None:
    with pytest.raises(ValueError, match="a blob of 64424509440 chunks"):
        BlobRef("a" * 64, "numpy.ndarray", (60 << 30,), chunk_bytes=1).check()


def test_names_are_compared_in_no_more_time_than_they_are_long() -> None:
    sent = tuple(f"w{number}" for number in range(20_000))
    got = Parameters([b""] * 100_000, "numpy.ndarray", tuple(f"x{n}" for n in range(100_000)))
    like = ParametersSpec("numpy.ndarray", len(sent), (), sent)
    begun = time.process_time()
    reason = check_fit_reply(like, FitRes(Status(Code.OK, ""), got, 1, {}), ReplyCheck.LIKE_SENT)
    assert "did not come" in str(reason)
    assert time.process_time() - begun < 2.0


def test_entries_of_a_sum_have_a_budget_each() -> None:
    bomb = length_delimited(5, b"\x22\0" * 200_000)
    data = struct.pack(">I", len(bomb)) + bomb
    with pytest.raises(MalformedMessage, match="more than 100000 values"):
        read_entries(data)
