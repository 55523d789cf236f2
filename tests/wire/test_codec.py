"""Messages there and back, whole, cut and damaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.common.errors import InvalidReturnValue, MalformedMessage, PeerError, UnsupportedVersion
from flmq.common.phase import Phase
from flmq.common.typing import (
    Code,
    EvaluateRes,
    FitIns,
    FitRes,
    GetPropertiesIns,
    Parameters,
    Scalar,
    Status,
)
from flmq.wire.bodies import Body
from flmq.wire.budget import MAX_ENVELOPE_BYTES
from flmq.wire.codec import SCHEMA_MAJOR, decode, encode
from flmq.wire.envelopes import (
    MAX_FAILURE_TEXT,
    Begun,
    Failure,
    FailureKind,
    JobEnded,
    ModelRequest,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    RollCall,
    Sealed,
    Task,
)
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.regional import AggregateOrder, AggregatorReport, PartialSum, SendPartial
from tests.wire.cases import BODIES, MODEL, NOTHING, OK, exact, reply, task

GOLDEN = Path(__file__).parent / "golden"

every_body = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())


class TestEveryMessage:
    @every_body
    def test_comes_back_as_it_went(self, body: Body) -> None:
        assert exact(decode(encode(body))) == exact(body)

    @every_body
    def test_has_the_same_bytes_each_time(self, body: Body) -> None:
        assert encode(decode(encode(body))) == encode(body)

    @every_body
    def test_is_read_from_a_view_and_a_bytearray(self, body: Body) -> None:
        encoded = encode(body)
        assert exact(decode(memoryview(encoded))) == exact(body)
        assert exact(decode(bytearray(encoded))) == exact(body)

    @every_body
    def test_cut_anywhere_is_malformed(self, body: Body) -> None:
        encoded = encode(body)
        for length in range(len(encoded)):
            with pytest.raises(MalformedMessage):
                decode(encoded[:length])

    @every_body
    @pytest.mark.parametrize("tail", [b"\x00", b"\xff" * 12, b"\x07", b"\x0a\xff\xff\xff\xff\x07"])
    def test_with_garbage_after_it_is_malformed(self, body: Body, tail: bytes) -> None:
        with pytest.raises(MalformedMessage):
            decode(encode(body) + tail)

    @every_body
    def test_with_an_unknown_field_after_it_is_read(self, body: Body) -> None:
        # Field 1000, length-delimited, "new": what a later minor version might add.
        assert exact(decode(encode(body) + b"\xc2\x3e\x03new")) == exact(body)

    @every_body
    def test_with_any_byte_changed_raises_nothing_but_peer_errors(self, body: Body) -> None:
        encoded = encode(body)
        for position in range(len(encoded)):
            damaged = bytearray(encoded)
            damaged[position] ^= 0x55
            _decode_or_peer_error(damaged)

    def test_the_table_has_every_message(self) -> None:
        assert {type(body) for body in BODIES.values()} == {
            Task,
            Reply,
            Receipt,
            Presence,
            RollCall,
            JobEnded,
            ModelRequest,
            Begun,
            AggregateOrder,
            PartialSum,
            SendPartial,
            AggregatorReport,
            Sealed,
        }


class TestVersions:
    def test_another_major_is_refused_by_number(self) -> None:
        envelope = _envelope(BODIES["roll call"])
        envelope.schema_major = SCHEMA_MAJOR + 1
        with pytest.raises(UnsupportedVersion) as caught:
            decode(envelope.SerializeToString())
        assert (caught.value.got, caught.value.supported) == (SCHEMA_MAJOR + 1, SCHEMA_MAJOR)

    def test_another_major_is_refused_whatever_it_carries(self) -> None:
        envelope = pb.Envelope(schema_major=2, sender_version="2.0.0")
        with pytest.raises(UnsupportedVersion):
            decode(envelope.SerializeToString())

    def test_a_newer_minor_passes(self) -> None:
        envelope = _envelope(BODIES["roll call"])
        envelope.schema_minor = 99
        assert decode(envelope.SerializeToString()) == BODIES["roll call"]

    def test_no_version_is_malformed(self) -> None:
        envelope = _envelope(BODIES["roll call"])
        envelope.schema_major = 0
        with pytest.raises(MalformedMessage, match="states no schema version"):
            decode(envelope.SerializeToString())

    def test_an_unknown_kind_of_message_names_the_senders_version(self) -> None:
        envelope = pb.Envelope(schema_major=SCHEMA_MAJOR, sender_version="9.8.7")
        # Field 100, length-delimited: a message that a later minor version might add.
        body = envelope.SerializeToString() + b"\xa2\x06\x00"
        with pytest.raises(MalformedMessage, match=r"known here.*9\.8\.7"):
            decode(body)

    @every_body
    def test_unknown_fields_pass_at_every_depth(self, body: Body) -> None:
        envelope = _envelope(body)
        _add_unknown_fields(envelope)
        assert len(envelope.SerializeToString()) > len(encode(body))
        assert exact(decode(envelope.SerializeToString())) == exact(body)


# How a case's envelope is spoiled: each must be refused with a word on what is wrong.
SPOILED: list[tuple[str, str, Any, str]] = [
    ("fit task", "task.task_id", "", "task_id"),
    ("fit task", "task.task_id", "../../etc/passwd", "task_id"),
    ("fit task", "task.job", "", "job name"),
    ("fit task", "task.job", "a.b", "job name"),
    ("fit task", "task.client_id", "x" * 65, "client id"),
    ("fit task", "task.client_id", "alice\n", "client id"),
    ("fit task", "task.phase", 0, "Phase 0"),
    ("fit task", "task.phase", 77, "Phase 77"),
    ("fit task", "task.phase", pb.PHASE_EVALUATE, "EvaluateIns, not FitIns"),
    ("fit task", "task.timeout_seconds", float("nan"), "timeout_seconds"),
    ("fit task", "task.timeout_seconds", -1.0, "timeout_seconds"),
    ("fit task", "task.fit.parameters", None, "FitIns has no parameters"),
    ("fit task", "task.fit", None, "Task has no ins"),
    ("evaluate task", "task.evaluate.parameters", None, "EvaluateIns has no parameters"),
    ("fit reply", "reply.fit", None, "Reply has no res"),
    ("fit reply", "reply.fit.status", None, "status code 0"),
    ("fit reply", "reply.fit.status.code", 99, "status code 99"),
    ("fit reply", "reply.fit.parameters", None, "FitRes has no parameters"),
    ("fit reply", "reply.phase", pb.PHASE_EVALUATE, "EvaluateRes, not FitRes"),
    ("fit reply", "reply.seconds", float("inf"), "seconds"),
    ("fit reply", "reply.client_id", "", "client id"),
    ("failure EXCEPTION", "reply.failure.kind", 0, "FailureKind 0"),
    ("failure EXCEPTION", "reply.failure.kind", 50, "FailureKind 50"),
    ("receipt LATE", "receipt.outcome", 0, "ReceiptOutcome 0"),
    ("receipt LATE", "receipt.outcome", -3, "ReceiptOutcome -3"),
    ("receipt LATE", "receipt.late_by_seconds", float("nan"), "late_by_seconds"),
    ("presence HELLO", "presence.kind", 0, "PresenceKind 0"),
    ("presence HELLO", "presence.client_id", "a b", "client id"),
    ("presence HELLO", "presence.site", "", "site"),
    ("presence HELLO", "presence.site", "a.#", "site"),
    ("presence HELLO", "presence.instance", "", "instance"),
    ("presence HELLO", "presence.instance", "x" * 201, "instance"),
    ("presence HELLO", "presence.heartbeat_seconds", -1.0, "heartbeat_seconds"),
    ("roll call", "roll_call.job", "", "job name"),
    ("roll call", "roll_call.heartbeat_seconds", float("nan"), "heartbeat_seconds"),
    ("job ended", "job_ended.job", "é", "job name"),
    ("task of one whose aggregator adds up", "task.via", "a.b", "via"),
    ("order", "aggregate_order.task_id", "", "task_id"),
    ("order", "aggregate_order.job", "a.b", "job name"),
    ("order", "aggregate_order.server_round", 2**60, "server_round"),
    ("order", "aggregate_order.phase", 0, "Phase 0"),
    ("order", "aggregate_order.site", "!eu", "site"),
    ("order", "aggregate_order.epoch", 2**63, "epoch"),
    ("order", "aggregate_order.nonce", b"", "nonce"),
    ("order", "aggregate_order.nonce", bytes(65), "nonce"),
    ("order", "aggregate_order.run", "", "run"),
    ("order", "aggregate_order.call", 2**60, "call"),
    ("order", "aggregate_order.deadline_unix_ms", -1, "deadline_unix_ms"),
    ("order", "aggregate_order.timeout_seconds", float("nan"), "timeout_seconds"),
    ("order", "aggregate_order.parameters", None, "AggregateOrder has no parameters"),
    ("order with everything", "aggregate_order.model.digest", "x", "digest"),
    ("order", "aggregate_order.rule", 0, "ReplyRule 0"),
    ("order", "aggregate_order.rule", 9, "ReplyRule 9"),
    ("order", "aggregate_order.max_reply_bytes", 2**60, "max_reply_bytes"),
    ("order", "aggregate_order.answer_to", "a b", "answer_to"),
    ("order", "aggregate_order.asks", None, "0 asks"),
    ("partial sum", "partial_sum.parameters", None, "PartialSum has no parameters"),
    ("partial sum", "partial_sum.site", "", "site"),
    ("partial sum", "partial_sum.nonce", b"", "nonce"),
    ("partial sum that follows", "partial_sum.blob.chunk_bytes", 0, "chunks of 0"),
    ("send partial", "send_partial.task_id", "a b", "task_id"),
    ("aggregator report", "aggregator_report.site", "us", "covers"),
    ("aggregator report", "aggregator_report.covers", None, "covers"),
    ("aggregator report", "aggregator_report.instance", "", "instance"),
    ("aggregator report", "aggregator_report.report_seconds", 1e-9, "heartbeat_seconds"),
    ("receipt of an aggregator", "receipt.client_id", "!", "site"),
    ("receipt of an aggregator", "receipt.client_id", "!!eu", "site"),
]


class TestUnusableFields:
    @pytest.mark.parametrize(("case", "path", "value", "word"), SPOILED)
    def test_are_malformed_and_named(self, case: str, path: str, value: Any, word: str) -> None:
        envelope = _envelope(BODIES[case])
        *owners, name = path.split(".")
        owner: Any = envelope
        for part in owners:
            owner = getattr(owner, part)
        if value is None:
            owner.ClearField(name)
        else:
            setattr(owner, name, value)
        with pytest.raises(MalformedMessage) as caught:
            decode(envelope.SerializeToString())
        assert word in str(caught.value)
        assert "sent by flmq" in str(caught.value)

    def test_a_scalar_of_no_kind_is_malformed_and_named(self) -> None:
        envelope = _envelope(BODIES["fit task"])
        envelope.task.fit.config["lr"].Clear()
        with pytest.raises(MalformedMessage, match="scalar 'lr'"):
            decode(envelope.SerializeToString())

    def test_text_that_is_not_utf8_is_malformed(self) -> None:
        encoded = encode(BODIES["fit reply"])
        with pytest.raises(MalformedMessage):
            decode(encoded.replace("漢".encode(), b"\xff\xff\xff"))

    def test_nesting_without_end_is_malformed(self) -> None:
        # Groups (wire type 3) in unknown field 1000, opened 100,000 times.
        with pytest.raises(MalformedMessage):
            decode(encode(BODIES["roll call"]) + b"\xc3\x3e" * 100_000)

    @pytest.mark.parametrize("body", [b"", b"\x00", b"hello", b"\xff" * 20, b"\x80" * 11])
    def test_garbage_is_malformed(self, body: bytes) -> None:
        with pytest.raises(MalformedMessage):
            decode(body)

    @given(st.binary(max_size=200))
    def test_random_bytes_raise_nothing_but_peer_errors(self, body: bytes) -> None:
        _decode_or_peer_error(body)

    @given(st.data())
    @settings(max_examples=200)
    def test_damaged_messages_raise_nothing_but_peer_errors(self, data: st.DataObject) -> None:
        encoded = bytearray(encode(data.draw(st.sampled_from(list(BODIES.values())))))
        start = data.draw(st.integers(0, len(encoded)))
        end = data.draw(st.integers(start, min(len(encoded), start + 8)))
        encoded[start:end] = data.draw(st.binary(max_size=8))
        _decode_or_peer_error(encoded)


class TestUnsendable:
    def test_what_is_no_message_is_refused(self) -> None:
        with pytest.raises(TypeError, match="Status is no message"):
            encode(OK)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "body",
        [
            dataclasses.replace(task(FitIns(NOTHING, {})), server_round=-1),
            dataclasses.replace(task(FitIns(NOTHING, {})), epoch=2**64),
            dataclasses.replace(task(FitIns(NOTHING, {})), task_id=""),
            dataclasses.replace(task(FitIns(NOTHING, {})), timeout_seconds=float("inf")),
            task(GetPropertiesIns({}), Phase.FIT),
            reply(FitRes(OK, NOTHING, 1, {}), Phase.EVALUATE),
            Receipt("t", "j", 1, Phase.FIT, "c", ReceiptOutcome.LATE, "", -1.0),
            Presence(PresenceKind.HELLO, "c", "a.b", "i"),
        ],
    )
    def test_what_would_be_refused_there_is_refused_here(self, body: Body) -> None:
        with pytest.raises(ValueError, match=r"."):
            encode(body)

    def test_what_no_message_holds_is_refused_with_a_way_out(self) -> None:
        body = reply(FitRes(OK, Parameters([], "raw"), 1, {"pickled": bytes(MAX_ENVELOPE_BYTES)}))
        with pytest.raises(InvalidReturnValue, match=r"8388608 of a message: .* as parameters"):
            encode(body)
        metrics: dict[str, Scalar] = dict.fromkeys(map(str, range(50_000)), 1)
        with pytest.raises(InvalidReturnValue, match="more than 100000 values"):
            encode(reply(FitRes(OK, Parameters([], "raw"), 1, metrics)))

    def test_much_that_is_no_more_than_allowed_passes(self) -> None:
        metrics: dict[str, Scalar] = {"large": bytes(4 << 20), "text": "x" * (3 << 20)}
        metrics |= dict.fromkeys(map(str, range(20_000)), 1)
        body = reply(FitRes(OK, Parameters([], "raw"), 1, metrics))
        assert decode(encode(body)) == body


class TestFailureTexts:
    def test_are_cut_to_what_matters(self) -> None:
        long = "é" * 10_000
        sent = Failure(FailureKind.EXCEPTION, "E" * 5000, "first" + long, long + "last")
        got = decode(encode(reply(sent)))
        assert isinstance(got, Reply)
        assert isinstance(got.res, Failure)
        assert got.res.exception_type == "E" * MAX_FAILURE_TEXT
        assert got.res.message.startswith("firsté")
        assert got.res.traceback_tail.endswith("élast")
        for text in (got.res.message, got.res.traceback_tail):
            assert MAX_FAILURE_TEXT - 1 <= len(text.encode()) <= MAX_FAILURE_TEXT

    def test_with_lone_surrogates_still_arrive(self) -> None:
        got = decode(encode(reply(Failure(FailureKind.EXCEPTION, "OSError", "no file \udcff", ""))))
        assert isinstance(got, Reply)
        assert isinstance(got.res, Failure)
        assert got.res.message == r"no file \udcff"


class TestGolden:
    """Bytes that an earlier flmq wrote must be read as long as the major version is the same."""

    @pytest.mark.parametrize("name", ["fit task", "fit reply"])
    def test_stored_messages_are_read(self, name: str) -> None:
        stored = bytes.fromhex((GOLDEN / f"{name.replace(' ', '_')}.hex").read_text())
        assert exact(decode(stored)) == exact(BODIES[name])

    @pytest.mark.parametrize("name", ["fit task", "fit reply"])
    def test_they_are_what_is_written_today(self, name: str) -> None:
        stored = pb.Envelope.FromString(
            bytes.fromhex((GOLDEN / f"{name.replace(' ', '_')}.hex").read_text())
        )
        today = _envelope(BODIES[name])
        assert stored.schema_major == today.schema_major
        # The version of flmq is the one thing that may change without the schema.
        stored.sender_version = today.sender_version
        stored.schema_minor = today.schema_minor
        assert stored.SerializeToString(deterministic=True) == today.SerializeToString(
            deterministic=True
        )


scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(),
    st.binary(),
)
scalar_dicts = st.dictionaries(st.text(), scalars, max_size=6)
printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30)


@st.composite
def named_or_not(draw: st.DrawFn) -> Parameters:
    tensors = draw(st.lists(st.binary(max_size=40), max_size=4))
    count = len(tensors)
    names = draw(st.lists(printable, min_size=count, max_size=count, unique=True))
    return Parameters(tensors, draw(st.text()), tuple(draw(st.sampled_from([names, []]))))


parameters = named_or_not()
statuses = st.builds(Status, code=st.sampled_from(Code), message=st.text())
int64 = st.integers(-(2**63), 2**63 - 1)


class TestAnyValues:
    @given(scalar_dicts)
    def test_scalars_keep_type_and_value(self, config: dict[str, Scalar]) -> None:
        body = task(FitIns(MODEL, config))
        assert exact(decode(encode(body))) == exact(body)

    @given(st.builds(FitRes, statuses, parameters, int64, scalar_dicts))
    def test_fit_results(self, res: FitRes) -> None:
        assert exact(decode(encode(reply(res)))) == exact(reply(res))

    @given(st.builds(EvaluateRes, statuses, st.floats(), int64, scalar_dicts))
    def test_evaluations(self, res: EvaluateRes) -> None:
        body = reply(res, Phase.EVALUATE)
        assert exact(decode(encode(body))) == exact(body)

    @given(scalar_dicts)
    def test_bytes_do_not_depend_on_the_order_of_a_dict(self, config: dict[str, Scalar]) -> None:
        turned = dict(reversed(config.items()))
        assert encode(task(FitIns(MODEL, config))) == encode(task(FitIns(MODEL, turned)))


def _envelope(body: Body) -> pb.Envelope:
    return pb.Envelope.FromString(encode(body))


def _decode_or_peer_error(body: bytes | bytearray) -> None:
    """Whatever the bytes: a message or a PeerError; anything else fails the test."""
    try:
        decoded = decode(body)
    except PeerError:
        return
    assert exact(decode(encode(decoded))) == exact(decoded)


def _add_unknown_fields(message: Any) -> None:
    """Put field 1000, unknown to all, into every message below."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            for key in value:
                _add_unknown_fields(value[key])
        elif isinstance(value, Iterable):
            for each in value:
                _add_unknown_fields(each)
        else:
            _add_unknown_fields(value)
    message.MergeFromString(b"\xc2\x3e\x03new")
