"""What is out of a field's bounds is neither sent nor taken, and is named."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from flmq.common.errors import MalformedMessage
from flmq.common.phase import Phase
from flmq.common.typing import Scalar
from flmq.wire import (
    MAX_COMPANIONS,
    Body,
    Companion,
    JobEnded,
    ModelRequest,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    RollCall,
    Sealed,
    decode,
    encode,
)
from flmq.wire.bounds import MAX_EPOCH, MAX_HEARTBEAT, MAX_INSTANCE, MIN_HEARTBEAT
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb

_HELLO = Presence(PresenceKind.HELLO, "bob", "main", "host-1", {}, 1, 30.0, "1")
_FINE: dict[str, Body] = {
    "presence": _HELLO,
    "roll_call": RollCall("job", 1, 30.0),
    "job_ended": JobEnded("job", 1),
    "receipt": Receipt("t", "job", 1, Phase.FIT, "bob", ReceiptOutcome.LATE, "", 1.0),
    "model_request": ModelRequest("job", "bob", "0" * 64),
    "sealed": Sealed("Task", "!server", "bob", b"letter", "job", "r1", b"manifest"),
}
_SECONDS = [1e300, -1.0, math.nan, math.inf, -math.inf]
_HEARTBEATS = [*_SECONDS, 1e-300, MIN_HEARTBEAT / 2, MAX_HEARTBEAT * 2]
_EPOCHS = [2**64 - 1, MAX_EPOCH + 1]

_OUT_OF_BOUNDS: list[tuple[str, str, Any]] = [
    *(("roll_call", "heartbeat_seconds", seconds) for seconds in _HEARTBEATS),
    *(("presence", "heartbeat_seconds", seconds) for seconds in _HEARTBEATS),
    *(("roll_call", "epoch", epoch) for epoch in _EPOCHS),
    *(("job_ended", "epoch", epoch) for epoch in _EPOCHS),
    *(("receipt", "late_by_seconds", seconds) for seconds in _SECONDS),
    *(("presence", "sent_unix_ms", at) for at in (-1, 2**62, -(2**63))),
    # As a correlation id: 255 bytes of AMQP, which four-byte characters would not fit.
    *(("presence", "instance", text) for text in ("", "\U0001f600" * 64, "i" * 201, "a\nb")),
    ("presence", "flmq_version", "1" * 1000),
    ("presence", "site", "a.b"),
    ("receipt", "server_round", 2**64 - 1),
    ("model_request", "digest", "0" * 63),
    *(("sealed", "kind", kind) for kind in ("", "Ta sk", "T" * 65)),
    *(("sealed", name, who) for name in ("sender", "recipient") for who in ("!", "!a.b", "b/ob")),
    ("sealed", "run", "r" * 65),
    ("sealed", "manifest", bytes(1025)),
    ("sealed", "letter", b""),
    ("model_request", "client_id", "b..ob"),
]


@pytest.mark.parametrize(("message", "field", "value"), _OUT_OF_BOUNDS)
def test_what_is_out_of_bounds_is_dropped_by_the_fields_name(
    message: str, field: str, value: Any
) -> None:
    envelope = pb.Envelope.FromString(encode(_FINE[message]))
    setattr(getattr(envelope, message), field, value)
    name = "client id" if field == "client_id" else field
    with pytest.raises(MalformedMessage, match=name):
        decode(envelope.SerializeToString())


@pytest.mark.parametrize("message", _FINE)
def test_every_number_of_a_control_message_has_bounds(message: str) -> None:
    """A field that is added needs a line above: the largest and smallest are refused everywhere."""
    envelope = pb.Envelope.FromString(encode(_FINE[message]))
    body = getattr(envelope, message)
    numbers = {
        field.name
        for field in body.DESCRIPTOR.fields
        if type(getattr(body, field.name)) in (int, float) and field.enum_type is None
    }
    assert numbers <= {field for name, field, _ in _OUT_OF_BOUNDS if name == message}


@pytest.mark.parametrize(
    "body",
    [
        Presence(PresenceKind.HELLO, "c", "s", "~" * MAX_INSTANCE),
        Presence(PresenceKind.HELLO, "c", "s", "i", heartbeat_seconds=MAX_HEARTBEAT),
        RollCall("job", MAX_EPOCH, MIN_HEARTBEAT),
        RollCall("job", 0, 0.0),
    ],
)
def test_the_bounds_themselves_are_within(body: Body) -> None:
    assert decode(encode(body)) == body


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ({f"p{i}": i for i in range(300)}, "300 properties: 256 at most"),
        ({"notes": "x" * 100_000}, "properties of 100005 bytes: 65536 at most"),
        ({"notes": b"x" * 100_000}, "properties of 100005 bytes: 65536 at most"),
        ({"x" * 100_000: True}, "properties of 100008 bytes: 65536 at most"),
    ],
)
def test_too_many_properties_are_refused_and_their_client_is_heard(
    properties: dict[str, Scalar], why: str
) -> None:
    hello = Presence(PresenceKind.HELLO, "c", "s", "i", properties)
    with pytest.raises(ValueError, match=why):
        encode(hello)
    envelope = pb.Envelope.FromString(encode(_HELLO))
    for name, value in properties.items():
        kind = {int: "int_value", str: "str_value", bytes: "bytes_value", bool: "bool_value"}
        setattr(envelope.presence.properties[name], kind[type(value)], value)
    heard = decode(envelope.SerializeToString())
    assert isinstance(heard, Presence)
    assert (heard.client_id, heard.properties, heard.refused) == ("bob", {}, why)


def test_of_several_clients_in_a_message_only_those_are_left_out_that_are_not_valid() -> None:
    envelope = pb.Envelope.FromString(encode(_HELLO))
    others = envelope.presence.others
    others.add(client_id="fine", greeting="g" * MAX_INSTANCE)
    others.add(client_id="not/fine")
    others.add(client_id="fine-2", greeting="g" * (MAX_INSTANCE + 1))
    others.add(client_id="")
    others.add(client_id="odd").properties["x"].SetInParent()  # a scalar without a value
    others.add(client_id="many").properties["x"].str_value = "x" * 100_000
    heard = decode(envelope.SerializeToString())
    assert isinstance(heard, Presence)
    assert [other.client_id for other in heard.others] == ["fine", "many"]
    assert heard.others[1].properties == {}
    assert heard.others[1].refused == "properties of 100001 bytes: 65536 at most"
    assert heard.dropped[0] == 4
    assert "not/fine" in heard.dropped[1]


def test_a_message_tells_of_so_many_clients_at_most() -> None:
    envelope = pb.Envelope.FromString(encode(_HELLO))
    for number in range(MAX_COMPANIONS + 5):
        envelope.presence.others.add(client_id=f"c{number}")
    heard = decode(envelope.SerializeToString())
    assert isinstance(heard, Presence)
    assert len(heard.others) == MAX_COMPANIONS
    assert heard.dropped == (5, f"more than {MAX_COMPANIONS} others in a message")
    with pytest.raises(ValueError, match="1001 others: 1000 at most"):
        encode(replace(_HELLO, others=(*heard.others, Companion("one-too-many"))))
