"""Messages to bytes and back, with the schema's version: the one door between flmq and its wire."""

from __future__ import annotations

from google.protobuf.message import DecodeError, EncodeError

from flmq import __version__
from flmq.common.errors import (
    InvalidClientId,
    InvalidJobName,
    InvalidReturnValue,
    MalformedMessage,
    UnsupportedVersion,
)
from flmq.wire.budget import OverBudget, check_budget
from flmq.wire.checks import check
from flmq.wire.envelopes import Body
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.serde.envelopes import BODIES

__all__ = ["SCHEMA_MAJOR", "SCHEMA_MINOR", "decode", "encode"]

SCHEMA_MAJOR = 1
SCHEMA_MINOR = 1


def encode(body: Body) -> bytes:
    """Turn a message into bytes; equal messages of one flmq version have equal bytes.

    Raises:
        InvalidReturnValue: a value that cannot be sent stands in the contract's types.
        InvalidClientId: the client id is not usable.
        InvalidJobName: the job name is not usable.
        ValueError: another field of the envelope is not usable, a mistake in the calling code.
        TypeError: likewise.
    """
    pair = BODIES.get(type(body))
    if pair is None:
        raise TypeError(f"{type(body).__name__} is no message of flmq")
    check(body)
    envelope = pb.Envelope(
        schema_major=SCHEMA_MAJOR, schema_minor=SCHEMA_MINOR, sender_version=__version__
    )
    pair.to_proto(body, getattr(envelope, pair.field))
    return _serialize(envelope)


def decode(body: bytes | bytearray | memoryview, *, our_own: bool = False) -> Body:
    """Turn bytes into a message. Fields that a newer minor version added are passed over.

    ``our_own``: we wrote them to disk ourselves, perhaps with an flmq that had larger messages.

    Raises:
        MalformedMessage: not a message of flmq, or one with a field that is not usable.
        UnsupportedVersion: of another major version of the schema.
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


def _serialize(envelope: pb.Envelope) -> bytes:
    """The envelope's bytes, its maps in a fixed order."""
    # The length is asked of the result: protobuf's ByteSize() writes the whole message for it.
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
    """The envelope in ``body``; ``counted``: if it holds no more than anybody sends."""
    try:
        if counted:
            check_budget(memoryview(body), pb.Envelope)
        return pb.Envelope.FromString(bytes(body))
    except OverBudget as error:
        raise MalformedMessage(f"a message that nobody sends: {error}") from error
    # ValueError: text that is not UTF-8; RecursionError: protobuf's parser in pure Python.
    except (DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"{len(body)} bytes that are no message of flmq: {error}") from error


def _read(envelope: pb.Envelope) -> Body:
    """The message in an envelope of our version."""
    field = envelope.WhichOneof("body")
    for pair in BODIES.values():
        if pair.field == field:
            body: Body = pair.from_proto(getattr(envelope, field))
            check(body)
            return body
    raise MalformedMessage("the envelope carries no message of a kind known here")
