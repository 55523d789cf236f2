"""Kinds of messages that a program adds: their bytes, and what a hostile peer makes of them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import InvalidReturnValue, MalformedMessage, PeerError
from flmq.common.phase import Phase
from flmq.common.typing import (
    Code,
    Config,
    FitIns,
    FitRes,
    Metrics,
    Parameters,
    ReconnectIns,
    Scalar,
    Status,
)
from flmq.wire import Failure, FailureKind, Receipt, ReceiptOutcome, Reply, Task, decode, encode
from flmq.wire.blobs import refer
from flmq.wire.budget import MAX_ENVELOPE_BYTES
from flmq.wire.kinds import (
    InvalidKind,
    Kind,
    NotRegistered,
    PayloadCodec,
    UnknownKind,
    check_reply,
    kind_named,
    kind_of,
    register,
    type_problem,
)
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.proto.flmq.v1 import fields_pb2
from flmq.wire.serde.fields import UnsuitableField
from tests.wire.cases import MODEL, NOTHING, OK, SCALARS, exact, reply, task


@dataclass
class EverythingIns:
    yes: bool
    number: int
    real: float
    text: str
    raw: bytes
    any_scalar: Scalar
    config: Config
    parameters: Parameters
    more: Parameters | None = None
    maybe: int | None = 3
    later: str = "default"


@dataclass
class EverythingRes:
    status: Status
    people: int
    metrics: Metrics = field(default_factory=dict)


EVERYTHING = register(Kind("test.everything", EverythingIns, EverythingRes, call="everything"))
PHASE = EVERYTHING.phase
INS = EverythingIns(True, -(2**63), -0.0, "naïve\x00", b"\xff\x00", 1.0, SCALARS, MODEL, NOTHING)
RES = EverythingRes(OK, 3, SCALARS)
GOLDEN = Path(__file__).parent / "golden"
UNKNOWN = Phase("test.unknown")


@dataclass
class JsonIns:
    numbers: list[int]


@dataclass
class JsonRes:
    said: str


def _json(of: type) -> PayloadCodec:
    return PayloadCodec(
        lambda value: json.dumps(vars(value), sort_keys=True).encode(),
        lambda payload: of(**json.loads(payload)),
    )


JSON = register(
    Kind(
        "test.json",
        JsonIns,
        JsonRes,
        call="json",
        check=lambda ins, res: None if len(res.said) == ins.numbers[0] else "too long or short",
        ins_codec=_json(JsonIns),
        res_codec=_json(JsonRes),
    )
)


def _envelope(body: Task | Reply | Receipt) -> pb.Envelope:
    return pb.Envelope.FromString(encode(body))


# -- there and back ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        task(INS, PHASE),
        task(dataclasses.replace(INS, more=None, maybe=None, any_scalar=b""), PHASE),
        reply(RES, PHASE),
        reply(EverythingRes(Status(Code.FIT_NOT_IMPLEMENTED, ""), 0), PHASE),
        reply(Failure(FailureKind.EXCEPTION, "ValueError", "no"), PHASE),
        task(JsonIns([1, 2]), JSON.phase),
        reply(JsonRes("é"), JSON.phase),
        task(UnknownKind(b"\x00anything"), UNKNOWN),
        reply(UnknownKind(b""), UNKNOWN),
        Receipt("t1", "job-1", 1, UNKNOWN, "bob", ReceiptOutcome.LATE, "so it is", 1.5),
    ],
)
def test_a_message_comes_back_as_it_went_with_the_same_bytes(body: Task | Reply | Receipt) -> None:
    encoded = encode(body)
    assert exact(decode(encoded)) == exact(body)
    assert encode(decode(encoded)) == encoded
    for length in range(len(encoded)):
        with pytest.raises(MalformedMessage):
            decode(encoded[:length])


@pytest.mark.parametrize(
    ("name", "body"), [("kind_task", task(INS, PHASE)), ("kind_reply", reply(RES, PHASE))]
)
def test_messages_of_earlier_versions_are_read_and_are_what_is_written_today(
    name: str, body: Task | Reply
) -> None:
    stored = bytes.fromhex((GOLDEN / f"{name}.hex").read_text(encoding="ascii"))
    assert exact(decode(stored)) == exact(body)
    before, today = pb.Envelope.FromString(stored), _envelope(body)
    assert (before.task, before.reply) == (today.task, today.reply)


def test_numpys_scalars_become_pythons() -> None:
    scalars: dict[str, Any] = {"number": np.int32(7), "real": np.float32(0.5), "yes": np.bool_(0)}
    ins = dataclasses.replace(INS, **scalars)
    decoded = decode(encode(task(ins, PHASE)))
    assert isinstance(decoded, Task)
    assert isinstance(decoded.ins, EverythingIns)
    assert (decoded.ins.number, decoded.ins.real, decoded.ins.yes) == (7, 0.5, False)
    assert type(decoded.ins.number) is int


def test_an_unknown_kind_is_read_and_kept_as_it_is() -> None:
    """A client spools what it cannot read, and its program may know it after the next start."""
    envelope = _envelope(task(INS, PHASE))
    envelope.task.kind = UNKNOWN.value
    decoded = decode(envelope.SerializeToString())
    assert isinstance(decoded, Task)
    assert decoded.phase is UNKNOWN
    assert decoded.ins == UnknownKind(envelope.task.payload)
    assert encode(decoded) == envelope.SerializeToString(deterministic=True)


def test_a_task_of_an_unknown_kind_may_name_a_model() -> None:
    ref = refer(MODEL)
    body = dataclasses.replace(task(UnknownKind(b"x"), UNKNOWN), model=ref)
    assert decode(encode(body)) == body


def test_what_has_no_parameters_has_none_that_follow() -> None:
    with pytest.raises(ValueError, match="EverythingRes has no parameters"):
        encode(dataclasses.replace(reply(RES, PHASE), blob=refer(MODEL)))


# -- what cannot be sent ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"number": "7"}, "EverythingIns.number is a str: it must be int"),
        ({"number": True}, "EverythingIns.number is a bool: it must be int"),
        ({"number": 2**63}, "does not fit 64 bits"),
        ({"real": "1"}, "EverythingIns.real is a str: it must be a float"),
        ({"text": None}, "EverythingIns.text is a None"),
        ({"raw": [1]}, "EverythingIns.raw is a list"),
        ({"config": {"a": [1]}}, "EverythingIns.config['a'] is a list"),
        ({"parameters": MODEL.tensors}, "EverythingIns.parameters is a list"),
        ({"text": "x" * MAX_ENVELOPE_BYTES}, "this EverythingIns cannot be sent"),
        ({"config": {str(n): n for n in range(100_001)}}, "more than 100000 values"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_where_it_is_sent(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidReturnValue) as caught:
        encode(task(dataclasses.replace(INS, **changes), PHASE))
    assert said in str(caught.value)


def test_a_codec_that_fails_names_its_type() -> None:
    with pytest.raises(InvalidReturnValue, match=r"the codec of JsonIns cannot write it \(TypeErr"):
        encode(task(JsonIns([b"no JSON"]), JSON.phase))  # type: ignore[list-item]


def test_what_is_of_another_kind_is_not_sent() -> None:
    with pytest.raises(ValueError, match=r"test.everything asks with EverythingIns, not JsonIns"):
        encode(task(JsonIns([]), PHASE))
    with pytest.raises(ValueError, match=r"test.everything is answered by EverythingRes, not Fit"):
        encode(reply(FitRes(OK, NOTHING, 1, {}), PHASE))
    with pytest.raises(ValueError, match=r"'test.unknown': register it with flmq.wire.kinds"):
        encode(task(INS, UNKNOWN))


# -- what a hostile peer sends ----------------------------------------------------------------


def _spoiled(change: str) -> bytes:
    """A task's envelope with something wrong."""
    envelope = _envelope(task(INS, PHASE))
    fields = fields_pb2.Fields.FromString(envelope.task.payload)
    match change:
        case "lacks a field":
            del fields.fields["number"]
        case "another type":
            fields.fields["number"].scalar.str_value = "7"
        case "a scalar for parameters":
            fields.fields["parameters"].scalar.int_value = 7
        case "nothing in a field":
            fields.fields["number"].Clear()
        case "a scalar of no kind":
            fields.fields["number"].scalar.Clear()
        case "too many values":
            for number in range(100_001):
                fields.fields["config"].scalars.values[str(number)].bool_value = True
    envelope.task.payload = fields.SerializeToString()
    match change:
        case "garbage":
            envelope.task.payload = b"\xff" * 20
        case "an unusable name":
            envelope.task.kind = "../../etc/passwd"
        case "a name that has a number":
            envelope.task.kind = "fit"
        case "no name":
            envelope.task.ClearField("kind")
        case "a built-in kind's phase":
            envelope.task.phase = pb.PHASE_FIT
        case "a built-in kind's field":
            envelope.task.reconnect.seconds = 3
    return envelope.SerializeToString()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lacks a field", "EverythingIns lacks its number"),
        ("another type", "EverythingIns.number is a str: it must be int"),
        ("a scalar for parameters", "EverythingIns.parameters holds scalar: it must be parameters"),
        ("nothing in a field", "EverythingIns.number holds nothing: it must be int"),
        ("a scalar of no kind", "has no value of a kind known here"),
        ("too many values", "more than 100000 values"),
        ("garbage", "the payload cannot be read"),
        ("an unusable name", "kind of message '../../etc/passwd' is not usable"),
        ("a name that has a number", "Phase 6 'fit' is none of those known here"),
        ("no name", "kind of message '' is not usable"),
        ("a built-in kind's phase", "Task has no ins of a kind known here"),
        ("a built-in kind's field", "test.everything asks with EverythingIns, not ReconnectIns"),
    ],
)
def test_a_message_with_something_wrong_is_malformed_and_says_what(change: str, said: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(_spoiled(change))
    assert said in str(caught.value)
    assert "sent by flmq" in str(caught.value)


def test_whatever_a_codec_raises_makes_the_message_malformed() -> None:
    envelope = _envelope(reply(JsonRes(""), JSON.phase))
    envelope.reply.payload = b'{"unexpected": 1}'
    with pytest.raises(MalformedMessage, match=r"cannot be read \(TypeError"):
        decode(envelope.SerializeToString())


@given(st.binary(max_size=300))
def test_any_payload_is_read_or_malformed(payload: bytes) -> None:
    envelope = _envelope(task(INS, PHASE))
    envelope.task.payload = payload
    with pytest.raises(PeerError):  # too much would have to be right
        decode(envelope.SerializeToString())


def test_any_byte_changed_raises_nothing_but_peer_errors() -> None:
    encoded = encode(task(INS, PHASE))
    for position in range(len(encoded)):
        damaged = bytearray(encoded)
        damaged[position] ^= 0x55
        try:
            decoded = decode(damaged)
        except PeerError:
            continue
        assert exact(decode(encode(decoded))) == exact(decoded)


def test_a_later_versions_fields_pass_and_those_with_defaults_may_be_missing() -> None:
    envelope = _envelope(task(INS, PHASE))
    fields = fields_pb2.Fields.FromString(envelope.task.payload)
    del fields.fields["later"]
    fields.fields["of_tomorrow"].scalar.int_value = 1
    envelope.task.payload = fields.SerializeToString()
    decoded = decode(envelope.SerializeToString())
    assert isinstance(decoded, Task)
    assert exact(decoded.ins) == exact(INS)


# -- the registry -----------------------------------------------------------------------------


def test_flmqs_own_kinds_are_registered_as_others_are() -> None:
    for name in ("fit", "evaluate", "get_parameters", "get_properties", "reconnect"):
        assert kind_named(name).phase is Phase(name)
    assert kind_of(FitIns(NOTHING, {})) is kind_named("fit")
    assert kind_of(ReconnectIns(None)).phase is Phase.RECONNECT
    assert kind_of(INS) is EVERYTHING


def test_what_nobody_registered_is_named() -> None:
    with pytest.raises(NotRegistered, match=r"no kind of message is called 'test.unknown'"):
        kind_named(UNKNOWN.value)
    with pytest.raises(NotRegistered, match=r"Task is of no kind of message: register it"):
        kind_of(task(INS, PHASE))


@dataclass
class WrongStatus:
    status: str


@dataclass
class HasAList:
    numbers: list[int]


class NoDataclass:
    pass


@pytest.mark.parametrize(
    ("error", "said", "kind"),
    [
        (InvalidKind, "'Ages' is not usable", lambda: Kind("Ages", EverythingIns, JsonRes)),
        (InvalidKind, "no client has a method 'a-b'", lambda: Kind("a-b", EverythingIns, JsonRes)),
        (InvalidKind, "a method '_x'", lambda: Kind("a", EverythingIns, JsonRes, call="_x")),
        (InvalidKind, "WrongStatus.status is not", lambda: Kind("a", EverythingIns, WrongStatus)),
        (UnsuitableField, "HasAList.numbers is a list", lambda: Kind("a", HasAList, JsonRes)),
        (UnsuitableField, "NoDataclass is no dataclass", lambda: Kind("a", NoDataclass, JsonRes)),
        (InvalidKind, "there is a kind 'fit'", lambda: register(Kind("fit", Unused, JsonRes))),
        (
            InvalidKind,
            "EverythingIns is what kind 'test.everything' asks with",
            lambda: register(Kind("a", EverythingIns, JsonRes)),
        ),
    ],
)
def test_a_kind_that_cannot_be_is_refused(error: type[Exception], said: str, kind: Any) -> None:
    with pytest.raises(error) as caught:
        kind()
    assert said in str(caught.value)


@dataclass
class Unused:
    pass


def test_registered_again_with_types_of_the_same_names_the_last_one_counts() -> None:
    def define() -> Kind:
        @dataclass
        class Ins:
            number: int

        return register(Kind("test.twice", Ins, JsonRes, call="twice"))

    first, second = define(), define()
    assert kind_named("test.twice") is second
    assert kind_of(second.ins(1)) is second
    with pytest.raises(NotRegistered):
        kind_of(first.ins(1))


def test_types_whose_names_cannot_be_found_are_refused_with_what_to_do() -> None:
    class Hidden:
        pass

    @dataclass
    class Ins:
        hidden: Hidden

    with pytest.raises(UnsuitableField, match="define it where the names of its types are known"):
        Kind("test.hidden", Ins, JsonRes, call="hidden")


# -- the check --------------------------------------------------------------------------------


def test_a_reply_is_checked_by_its_kinds_type_and_check() -> None:
    assert type_problem(PHASE, RES) is None
    assert type_problem(PHASE, JsonRes("")) == (
        "test.everything is answered by EverythingRes, not JsonRes"
    )
    unknown = "this server does not know messages of kind test.unknown: register it in the server's"
    assert (type_problem(UNKNOWN, UnknownKind(b"")) or "").startswith(unknown)
    assert check_reply(INS, RES) is None
    assert check_reply(JsonIns([2]), JsonRes("ab")) is None
    assert check_reply(JsonIns([1]), JsonRes("ab")) == "too long or short"
    assert check_reply(JsonIns([]), JsonRes("ab")) == (
        "the check of kind test.json raised IndexError: list index out of range"
    )
