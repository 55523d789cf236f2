"""Envelopes of every body that the schema has, found by reflection; payloads, entries, AMQP."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import pika
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message as ProtoMessage

from flmq.common.errors import InvalidReturnValue, MalformedMessage, PeerError
from flmq.common.parameter import parameters_of, parameters_to_ndarrays
from flmq.common.typing import Config, FitRes, Parameters, Status
from flmq.transport.base import Message
from flmq.transport.rabbitmq.properties import from_amqp
from flmq.transport.rabbitmq.reading import ReadingConnection
from flmq.wire import blob_chunk_of, decode, encode, without_unknown
from flmq.wire.codec import SCHEMA_MAJOR, SCHEMA_MINOR
from flmq.wire.entries import read_entries, write_entries
from flmq.wire.envelopes import Failure, FailureKind
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.proto.flmq.v1 import fields_pb2
from flmq.wire.regional import EntryOutcome, PartialEntry
from flmq.wire.serde.fields import dataclass_codec
from tests.fuzz.harness import Target
from tests.fuzz.protobufs import mutated, parse, random_message
from tests.fuzz.values import BYTES, INTEGERS, TEXTS, mutated_bytes
from tests.rawamqp import nested_arrays, nested_tables, properties, table
from tests.transport.oddities import ODD
from tests.wire.cases import BODIES, MODEL, OK, SCALARS

__all__ = ["body_kinds", "message_targets", "seeds_of"]

_MADE = 30
"""Seeds of each kind that are made by reflection, besides those that are written by hand; as many
of them as can be are valid."""
_TRIES = 400


def body_kinds() -> list[str]:
    """Return the names of all bodies that an envelope can carry."""
    oneof = cast("Descriptor", pb.Envelope.DESCRIPTOR).oneofs_by_name["body"]
    return [field.name for field in oneof.fields]


def seeds_of(kind: str) -> list[bytes]:
    """Return valid envelopes that carry a body of this kind."""
    by_hand = [encoded for body in BODIES.values() if _kind_of(encoded := encode(body)) == kind]
    rng = random.Random(kind)
    valid: list[bytes] = []
    others: list[bytes] = []
    for _ in range(_TRIES):
        envelope: Any = pb.Envelope(schema_major=SCHEMA_MAJOR, schema_minor=SCHEMA_MINOR)
        member = getattr(envelope, kind)
        member.CopyFrom(random_message(rng, type(member)))
        encoded = envelope.SerializeToString(deterministic=True)
        try:
            decode(encoded)
        except PeerError:
            others.append(encoded)
        else:
            valid.append(encoded)
    return by_hand + (valid + others)[:_MADE]


def _kind_of(encoded: bytes) -> str | None:
    return cast("str | None", pb.Envelope.FromString(encoded).WhichOneof("body"))


def message_targets() -> list[Target]:
    """Return the targets of all that comes as a message."""
    seeds = {kind: seeds_of(kind) for kind in body_kinds()}
    everybody = [seed for each in seeds.values() for seed in each]
    targets = [
        Target(
            f"envelope of a {kind}",
            own,
            _read_envelope,
            (PeerError,),
            _of_protobuf(pb.Envelope, everybody),
            weight=4.0,
        )
        for kind, own in seeds.items()
    ]
    codec = dataclass_codec(_Everything)
    payload = codec.encode(_Everything(True, 1, 0.5, "text", b"raw", SCALARS, MODEL, OK, None))
    entries = write_entries(_entries())
    return [
        *targets,
        Target(
            "payload of a dataclass",
            [payload],
            lambda data: codec.read(pb.Task(payload=data)),
            (MalformedMessage,),
            _of_protobuf(fields_pb2.Fields, [payload]),
            weight=2.0,
        ),
        Target("entries of a sum", [entries], read_entries, (PeerError,), _entries_mutated),
        Target(
            "AMQP properties",
            [*(odd.encoded for odd in ODD.values()), *_chunk_properties()],
            _read_properties,
            (),
            _properties_mutated,
            weight=2.0,
        ),
        Target("chunk's headers", [b""], _read_chunk, (PeerError,), _any_seed, are_valid=False),
    ]


def _read_envelope(data: bytes) -> None:
    """Read an envelope as a server or a client does, and write again what was read."""
    body = decode(data)
    without_unknown(data)
    repr(body)
    for holder in (body, getattr(body, "ins", None), getattr(body, "res", None)):
        parameters = parameters_of(holder)
        if parameters is not None and parameters.tensor_type == "numpy.ndarray":
            parameters_to_ndarrays(parameters)
    # What cannot be sent on must be said as what cannot be sent.
    try:
        again = encode(body)
    except InvalidReturnValue:
        return
    decode(again)


def _of_protobuf(
    kind: type[ProtoMessage], others: Iterable[bytes]
) -> Callable[[random.Random, bytes], bytes]:
    descriptor = cast("Descriptor", kind.DESCRIPTOR)
    taken = {data: parse(data, descriptor) for data in others}
    lent = list(taken.values())

    def mutate(rng: random.Random, data: bytes) -> bytes:
        return mutated(rng, taken[data], lent)

    return mutate


@dataclass
class _Everything:
    """A kind of a program's own, of every type that a field may have."""

    is_so: bool
    count: int
    share: float
    text: str
    raw: bytes
    config: Config
    parameters: Parameters
    status: Status
    may_lack: int | None


def _entries() -> list[PartialEntry]:
    nothing = Parameters([], "")
    failed = Failure(FailureKind.EXCEPTION, "ValueError", "no data", "")
    return [
        PartialEntry("t1", "alice", EntryOutcome.ACCEPTED, FitRes(OK, nothing, 3, SCALARS)),
        PartialEntry("t2", "bob", EntryOutcome.FAILED, failed),
        PartialEntry("t3", "carol", EntryOutcome.REJECTED, FitRes(OK, nothing, 1, {}), "of NaN"),
    ]


def _entries_mutated(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return mutated_bytes(rng, data)
    size = int.from_bytes(data[:4], "big")
    first = parse(data[4 : 4 + size], cast("Descriptor", pb.PartialEntry.DESCRIPTOR))
    changed = mutated(rng, first, [first])
    return len(changed).to_bytes(4, "big") + changed + data[4 + size :]


# -- AMQP -----------------------------------------------------------------------------------


def _chunk_properties() -> list[bytes]:
    name = b"a" * 32
    headers = table(
        (b"x-flmq-blob", b"S" + struct.pack(">I", len(name)) + name),
        (b"x-flmq-blob-index", b"I" + struct.pack(">i", 3)),
    )
    return [properties(headers=headers, type=b"BlobChunk", delivery_mode=2, app_id=b"flmq:7")]


def _properties_mutated(rng: random.Random, data: bytes) -> bytes:
    way = rng.random()
    if way < 0.6:
        return mutated_bytes(rng, data)
    if way < 0.7:
        nested = rng.choice((nested_tables, nested_arrays))(rng.choice((1, 10, 400, 3000)))
        return properties(headers=table((b"h", nested)))
    if way < 0.85:
        number = rng.choice(INTEGERS) & (2**64 - 1)
        kind = rng.choice(b"TlLdDtbBsuUIif")
        value = bytes([kind]) + struct.pack(">Q", number)[: rng.choice((1, 2, 4, 5, 8))]
        return properties(headers=table((rng.choice(TEXTS)[:255], value)), timestamp=number)
    text = rng.choice(TEXTS)[:255]
    names = ("correlation_id", "message_id", "type", "app_id", "expiration", "reply_to")
    return properties(**{name: text for name in names if rng.random() < 0.5})


def _read_properties(encoded: bytes) -> Message:
    """Read a content header as the connection does, and what it holds as a message."""
    payload = struct.pack(">HHQ", 60, 0, 0) + encoded
    connection = object.__new__(ReadingConnection)
    connection._frame_buffer = struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"
    _, header = connection._read_frame()
    if header is None:
        return Message(b"")
    found = cast("pika.BasicProperties", header.properties)
    message = from_amqp(found, b"body")
    for text in (message.type, message.message_id, message.correlation_id, *message.headers):
        text.encode()
    return message


def _any_seed(rng: random.Random, _: bytes) -> bytes:
    return rng.randbytes(8)


def _read_chunk(data: bytes) -> None:
    rng = random.Random(data)
    values: tuple[Any, ...] = (*INTEGERS, -1, True, None, 0.5, *TEXTS, *BYTES, "a" * 64, "a" * 97)
    headers: dict[str, object] = {"x-flmq-blob": rng.choice(values)}
    if rng.random() < 0.9:
        headers["x-flmq-blob-index"] = rng.choice(values)
    body = bytes(rng.choice((0, 1, 100, (4 << 20) + 1)) if rng.random() < 0.1 else 1)
    blob_chunk_of(headers, body)
