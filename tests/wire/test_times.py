"""A worker's times on the wire: what cannot be is dropped and named, and the reply counts."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from flmq.common.times import WorkerTimes
from flmq.common.typing import FitRes
from flmq.wire import Reply, decode, encode
from flmq.wire.entries import read_entries, write_entries
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.regional import EntryOutcome, PartialEntry
from tests.wire.cases import NOTHING, OK, reply

NOW = 1_800_000_000_000
RES = FitRes(OK, NOTHING, 3, {})
TIMES = WorkerTimes(NOW, NOW + 1, NOW + 2, NOW + 3, NOW + 4, 1, 0)


def heard(**said: int) -> WorkerTimes:
    """Return what is read of a reply whose sender put these into its times."""
    envelope = pb.Envelope.FromString(encode(replace(reply(RES), times=TIMES)))
    for name, value in said.items():
        setattr(envelope.reply.times, name, value)
    read = decode(envelope.SerializeToString())
    assert isinstance(read, Reply)
    assert read.res == reply(RES).res
    assert read.times is not None
    return read.times


def test_quick_copies_leave_out_no_field() -> None:
    names: dict[str, Any] = {each.name: each.name for each in fields(Reply)}
    assert Reply(**names).timed(TIMES) == replace(Reply(**names), times=TIMES)
    names = {each.name: each.name for each in fields(WorkerTimes)}
    times = WorkerTimes(**names)
    assert times.uploaded_at(NOW) == replace(times, upload_started_ms=NOW)


def test_an_older_worker_says_nothing() -> None:
    read = decode(encode(replace(reply(RES), times=None)))
    assert isinstance(read, Reply)
    assert read.times is None


def test_what_is_not_known_comes_back_as_not_known() -> None:
    nothing = WorkerTimes()
    read = decode(encode(replace(reply(RES), times=nothing)))
    assert isinstance(read, Reply)
    assert read.times == nothing


@pytest.mark.parametrize("absurd", [-1, -(2**63), 2**63 - 1, 253_402_300_800_000])
def test_an_absurd_time_is_dropped_and_named(absurd: int) -> None:
    times = heard(training_ended_unix_ms=absurd)
    assert times.training_ended_ms is None
    assert (times.taken_ms, times.upload_started_ms) == (NOW, NOW + 4)
    assert times.note == f"training_ended is no time: {absurd} ms"


def test_a_time_before_the_one_that_it_follows_is_dropped_and_named() -> None:
    times = heard(training_started_unix_ms=NOW - 3_600_000)
    assert times == replace(
        TIMES, training_started_ms=None, note="training_started is 3600001 ms before begun"
    )


def test_absurd_numbers_are_dropped_and_named() -> None:
    times = heard(deaths=2**32 - 1)
    assert (times.deliveries, times.deaths) == (None, None)
    assert "no numbers" in times.note


@pytest.mark.parametrize("absurd", [-5, 2**70])
def test_a_worker_whose_clock_is_absurd_sends_its_reply_all_the_same(absurd: int) -> None:
    read = decode(encode(replace(reply(RES), times=replace(TIMES, taken_ms=absurd, deaths=2**40))))
    assert isinstance(read, Reply)
    assert read.times == replace(TIMES, taken_ms=None, deaths=1_000_000)


def test_an_aggregators_entry_carries_them() -> None:
    entry = PartialEntry("t", "a", EntryOutcome.ACCEPTED, RES, times=TIMES)
    assert read_entries(write_entries([entry])) == [entry]


def test_they_cost_some_forty_bytes() -> None:
    bare = len(encode(replace(reply(RES), times=None)))
    assert len(encode(replace(reply(RES), times=TIMES))) - bare < 45
