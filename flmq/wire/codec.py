"""Encode and decode messages, with the schema version: the only entry to the wire format."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError, EncodeError

from flmq import __version__
from flmq.common.errors import (
    InvalidClientId,
    InvalidJobName,
    InvalidReturnValue,
    MalformedMessage,
    UnsupportedVersion,
)
from flmq.wire.bodies import Body
from flmq.wire.budget import OverBudget, check_budget
from flmq.wire.checks import check
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.serde.envelopes import BODIES as BASIC_BODIES
from flmq.wire.serde.members import SchemaField
from flmq.wire.serde.presence import PRESENCE_BODIES
from flmq.wire.serde.regional import REGIONAL_BODIES

__all__ = ["SCHEMA_MAJOR", "SCHEMA_MINOR", "decode", "encode", "without_unknown"]

SCHEMA_MAJOR = 1
SCHEMA_MINOR = 6

_BODIES: Mapping[type, SchemaField] = {**BASIC_BODIES, **PRESENCE_BODIES, **REGIONAL_BODIES}


def encode(body: Body) -> bytes:
    """Encode a message; within one flmq version, equal messages have equal bytes.

    Raises:
        InvalidReturnValue: a value in the contract's types cannot be sent.
        InvalidClientId: the client id is not valid.
        InvalidJobName: the job name is not valid.
        ValueError: another field of the envelope is not valid, a mistake in the calling code.
        TypeError: likewise.
    """
    member = _BODIES.get(type(body))
    if member is None:
        raise TypeError(f"{type(body).__name__} is no message of flmq")
    check(body)
    envelope = pb.Envelope(
        schema_major=SCHEMA_MAJOR, schema_minor=SCHEMA_MINOR, sender_version=__version__
    )
    member.write(body, envelope)
    return _serialize(envelope)


def decode(body: bytes | bytearray | memoryview, *, our_own: bool = False) -> Body:
    """Decode a message. Fields that a newer minor version added are ignored.

    ``our_own``: this process wrote it to disk itself, perhaps with an flmq that had larger
    messages.

    Raises:
        MalformedMessage: not a message of flmq, or a field is not valid.
        UnsupportedVersion: it has another major version of the schema.
    """
    envelope = _parse(body, counted=not our_own)
    if envelope.schema_major == 0:
        raise MalformedMessage("not a message of flmq: it states no schema version")
    if envelope.schema_major != SCHEMA_MAJOR:
        raise UnsupportedVersion(envelope.schema_major, SCHEMA_MAJOR)
    try:
        return _read(envelope)
    except (MalformedMessage, InvalidClientId, InvalidJobName, ValueError) as error:
        sender = envelope.sender_version[:40]
        raise MalformedMessage(f"{error} (sent by flmq {sender!r})") from error


def without_unknown(body: bytes) -> bytes:
    """Return a message that was decoded before, without the fields that are not known here.

    So a later version of flmq, which may know them, reads no more in it than this one did.
    """
    envelope = pb.Envelope.FromString(body)
    envelope.DiscardUnknownFields()
    return envelope.SerializeToString(deterministic=True)


def _serialize(envelope: pb.Envelope) -> bytes:
    """Return the envelope's bytes, with its maps in a fixed order."""
    # Measure the result: protobuf's ByteSize() would serialize the whole message once more.
    try:
        encoded = envelope.SerializeToString(deterministic=True)
    except EncodeError as error:
        raise InvalidReturnValue(f"protobuf cannot write this message: {error}") from error
    try:
        check_budget(encoded, pb.Envelope)
    except OverBudget as error:
        raise InvalidReturnValue(
            f"this message cannot be sent, {error}: config, metrics and properties are for small "
            "values; give arrays as parameters"
        ) from error
    return encoded


def _parse(body: bytes | bytearray | memoryview, *, counted: bool) -> pb.Envelope:
    """Parse the envelope in ``body``; ``counted``: check its budget first."""
    try:
        if counted:
            check_budget(memoryview(body), pb.Envelope)
        return pb.Envelope.FromString(bytes(body))
    except OverBudget as error:
        raise MalformedMessage(f"a message that nobody sends: {error}") from error
    # ValueError: text that is not UTF-8; RecursionError: protobuf's pure-Python parser.
    except (DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"{len(body)} bytes that are no message of flmq: {error}") from error


def _read(envelope: pb.Envelope) -> Body:
    """Return the message in an envelope of our major version."""
    field = envelope.WhichOneof("body")
    for member in _BODIES.values():
        if member.field == field:
            body: Body = member.read(envelope)
            check(body)
            return body
    raise MalformedMessage("the envelope carries no message of a kind known here")
