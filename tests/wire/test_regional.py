"""Orders and partial sums beyond what every message keeps: lists of asks, bitmaps, entries."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import InvalidClientId, InvalidReturnValue, MalformedMessage
from flmq.common.phase import Phase
from flmq.common.times import WorkerTimes
from flmq.common.typing import Code, FitRes, Parameters, Status
from flmq.wire import AggregateOrder, Asked, decode, encode, entries
from flmq.wire.budget import MAX_ENVELOPE_BYTES, count_values
from flmq.wire.entries import read_entries, write_entries
from flmq.wire.envelopes import Failure, FailureKind
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.regional import MAX_ASKED, EntryOutcome, PartialEntry, bitmap, list_digest, marked
from tests.wire.cases import NOTHING, OK, SCALARS, exact

_NONE = Parameters([], "numpy.ndarray")
ACCEPTED = PartialEntry(
    "t1",
    "alice",
    EntryOutcome.ACCEPTED,
    FitRes(OK, _NONE, 12, SCALARS),
    "",
    0.5,
    99,
    "a" * 64,
    WorkerTimes(1, 2, 3, 4, 5, 1, 2),
)
FAILED = PartialEntry(
    "t2", "bob", EntryOutcome.FAILED, Failure(FailureKind.EXCEPTION, "ValueError", "no data", "tb")
)
SAYS_NO = PartialEntry(
    "t3",
    "carol",
    EntryOutcome.FAILED,
    FitRes(Status(Code.FIT_NOT_IMPLEMENTED, "no"), _NONE, 0, {}),
)
REJECTED = PartialEntry(
    "t4", "dave", EntryOutcome.REJECTED, FitRes(OK, _NONE, 3, {}), "tensor 0 holds NaN"
)
ENTRIES = [ACCEPTED, FAILED, SAYS_NO, REJECTED]


def _asks(count: int, **rest: Any) -> tuple[Asked, ...]:
    return tuple(Asked(f"{i:032d}", f"client-{i:050d}", bytes(16), **rest) for i in range(count))


def _order(asks: tuple[Asked, ...]) -> AggregateOrder:
    return AggregateOrder("o", "j", 1, Phase.FIT, "eu", 1, b"n", "r", NOTHING, asks)


class TestOrders:
    def test_the_largest_fits_a_message_with_every_field_of_its_asks(self) -> None:
        asks = tuple(
            dataclasses.replace(ask, name=f"{ask.client_id}#2", site="s" * 64)
            for ask in _asks(MAX_ASKED)
        )
        assert decode(encode(_order(asks))) == _order(asks)

    @pytest.mark.parametrize(
        ("asks", "word"),
        [
            ((), "0 asks"),
            (_asks(MAX_ASKED + 1), "asks: 1 to"),
            (_asks(1) * 2, "same task twice"),
            ((Asked("t", "bob", b""),), "nonce"),
            ((Asked("t", "bob", b"n", site="!"),), "site"),
            ((Asked("t", "bob", b"n", name="alice"),), "none of client bob"),
            ((Asked("t", "bob", b"n", name="bob#" + "2" * 90),), "none of client bob"),
        ],
    )
    def test_with_a_list_that_no_order_has_are_refused_on_both_sides(
        self, asks: tuple[Asked, ...], word: str
    ) -> None:
        with pytest.raises(ValueError, match=word):
            encode(_order(asks))
        spoiled = pb.Envelope.FromString(encode(_order(_asks(1))))
        del spoiled.aggregate_order.asks[:]
        for ask in asks:
            spoiled.aggregate_order.asks.add(
                task_id=ask.task_id,
                client_id=ask.client_id,
                nonce=ask.nonce,
                name=ask.name,
                site=ask.site,
            )
        with pytest.raises(MalformedMessage, match=word):
            decode(spoiled.SerializeToString())


class TestBitmaps:
    @given(st.integers(0, 70), st.data())
    def test_mark_what_is_held(self, count: int, data: st.DataObject) -> None:
        asks = _asks(count)
        held = data.draw(st.frozensets(st.sampled_from([a.task_id for a in asks] or [""])))
        held &= {a.task_id for a in asks}
        assert marked(asks, bitmap(asks, held)) == held

    @given(st.binary(max_size=12))
    def test_of_any_bytes_mark_nothing_that_was_not_asked(self, held: bytes) -> None:
        asks = _asks(19)
        assert marked(asks, held) <= {ask.task_id for ask in asks}

    def test_of_two_lists_are_told_apart(self) -> None:
        asks = _asks(3)
        assert list_digest(asks) == list_digest(asks) != list_digest(asks[1:])


class TestEntries:
    def test_come_back_as_they_went(self) -> None:
        assert exact(read_entries(write_entries(ENTRIES))) == exact(ENTRIES)
        assert read_entries(b"") == []

    def test_texts_of_failures_are_cut(self) -> None:
        long = dataclasses.replace(REJECTED, reason="x" * 10_000)
        assert len(read_entries(write_entries([long]))[0].reason) == 4096

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            ({"task_id": ""}, "task_id"),
            ({"client_id": "!eu"}, "client id"),
            ({"seconds": float("nan")}, "seconds"),
            ({"bytes": 2**60}, "bytes"),
            ({"digest": "x"}, "digest"),
            ({"reason": "for no reason"}, "reason"),
            ({"outcome": EntryOutcome.REJECTED}, "reason"),
            ({"res": FAILED.res}, "failure"),
            ({"res": FitRes(OK, Parameters([b"x"], "t"), 1, {})}, "in the sum"),
        ],
    )
    def test_that_say_what_cannot_be_are_refused(self, change: dict[str, Any], word: str) -> None:
        with pytest.raises((ValueError, InvalidClientId), match=word):
            write_entries([dataclasses.replace(ACCEPTED, **change)])

    def test_too_many_or_too_large_are_refused_unread(self) -> None:
        data = write_entries([ACCEPTED] * 3)
        assert len(read_entries(data, most=3)) == 3
        with pytest.raises(MalformedMessage, match="more than 2 entries"):
            read_entries(data, most=2)
        huge = bytes(MAX_ENVELOPE_BYTES + 1)
        with pytest.raises(MalformedMessage, match="more than the"):
            read_entries(len(huge).to_bytes(4, "big") + huge)

    def test_without_a_result_are_refused(self) -> None:
        proto = pb.PartialEntry(task_id="t", client_id="c", outcome=pb.ENTRY_OUTCOME_FAILED)
        data = proto.SerializeToString()
        with pytest.raises(MalformedMessage, match="no res"):
            read_entries(len(data).to_bytes(4, "big") + data)

    def test_cut_anywhere_are_malformed_or_fewer(self) -> None:
        data = write_entries(ENTRIES)
        whole = {0}
        for entry in ENTRIES:
            whole.add(max(whole) + len(write_entries([entry])))
        for length in range(len(data)):
            if length in whole:
                read_entries(data[:length])
            else:
                with pytest.raises(MalformedMessage):
                    read_entries(data[:length])

    @given(st.binary(max_size=300))
    def test_of_any_bytes_raise_nothing_else(self, data: bytes) -> None:
        _read_or_malformed(data)

    @given(st.integers(0, 10_000), st.binary(min_size=1, max_size=6))
    def test_damaged_raise_nothing_else(self, at: int, by: bytes) -> None:
        data = bytearray(write_entries(ENTRIES))
        at %= len(data)
        data[at : at + len(by)] = by
        _read_or_malformed(bytes(data))

    def test_whose_metrics_cannot_be_sent_are_named(self) -> None:
        odd = FitRes(OK, _NONE, 1, {"a": [1]})  # type: ignore[dict-item]
        with pytest.raises(InvalidReturnValue, match="metrics"):
            write_entries([dataclasses.replace(ACCEPTED, res=odd)])


def _read_or_malformed(data: bytes) -> None:
    try:
        entries = read_entries(data)
    except MalformedMessage:
        return
    assert exact(read_entries(write_entries(entries))) == exact(entries)


def test_entries_have_a_budget_together_besides_each_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sixteen thousand of 100,000 values each would be gigabytes of objects."""
    res = FitRes(OK, _NONE, 12, {f"m{number}": float(number) for number in range(1000)})
    of = [dataclasses.replace(ACCEPTED, task_id=f"t{n}", res=res) for n in range(10)]
    data, each = write_entries(of), entries.values_at_most(res)
    monkeypatch.setattr(entries, "_COUNTED_FROM", 0)
    monkeypatch.setattr(entries, "MAX_SUM_VALUES", 10 * each)
    assert read_entries(data) == of
    monkeypatch.setattr(entries, "MAX_SUM_VALUES", 9 * each)
    with pytest.raises(MalformedMessage, match="hold more than 36288 values together"):
        read_entries(data)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.client_id)
def test_an_entry_counts_for_no_more_than_is_said_of_it(entry: PartialEntry) -> None:
    encoded = write_entries([dataclasses.replace(entry, digest="0" * 64)])[4:]
    counted = count_values(memoryview(encoded), pb.PartialEntry)
    assert 8 < counted <= entries.values_at_most(entry.res)
