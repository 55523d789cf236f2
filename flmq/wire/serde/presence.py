"""Convert presence and roll calls between dataclasses and protobuf."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from flmq.common.errors import InvalidClientId, MalformedMessage
from flmq.common.names import check_client_id
from flmq.wire.bounds import MAX_INSTANCE, MAX_PROPERTIES, too_many_properties
from flmq.wire.envelopes import MAX_COMPANIONS, Companion, Presence, PresenceKind, RollCall
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.serde.envelopes import member_of, start_of
from flmq.wire.serde.members import SchemaField
from flmq.wire.serde.values import plain_items, scalars_from_proto, scalars_to_proto

__all__ = ["PRESENCE_BODIES"]

_PRESENCES = {
    PresenceKind.HELLO: pb.PRESENCE_KIND_HELLO,
    PresenceKind.HEARTBEAT: pb.PRESENCE_KIND_HEARTBEAT,
    PresenceKind.BYE: pb.PRESENCE_KIND_BYE,
}
_FEW_BYTES = 2 * MAX_PROPERTIES
"""Bytes in which there are neither too many properties nor too large ones: each takes two or more.
"""


def presence_to_proto(presence: Presence, proto: pb.Presence) -> None:
    """Write clients' hello, heartbeat or bye."""
    proto.kind = _PRESENCES[presence.kind]
    proto.client_id = presence.client_id
    proto.site = presence.site
    proto.instance = presence.instance
    scalars_to_proto(presence.properties, proto.properties, "Presence.properties")
    proto.sent_unix_ms = presence.sent_unix_ms
    proto.heartbeat_seconds = presence.heartbeat_seconds
    proto.flmq_version = presence.flmq_version
    for other in presence.others:
        to = proto.others.add(client_id=other.client_id, greeting=other.greeting)
        if other.properties:
            where = f"Presence.properties of {other.client_id}"
            scalars_to_proto(other.properties, to.properties, where)


def presence_from_proto(proto: pb.Presence) -> Presence:
    """Read clients' hello, heartbeat or bye.

    A client with too many properties still counts as present: they are counted, but not copied. One
    of several that is not valid is left out, and counted.
    """
    refused = too_many_properties(len(proto.properties), plain_items(proto.properties))
    others, dropped = _companions(proto.others)
    return Presence(
        kind=member_of(PresenceKind, _PRESENCES, proto.kind),
        client_id=proto.client_id,
        site=proto.site,
        instance=proto.instance,
        properties={} if refused else scalars_from_proto(proto.properties),
        sent_unix_ms=proto.sent_unix_ms,
        heartbeat_seconds=proto.heartbeat_seconds,
        flmq_version=proto.flmq_version,
        refused=refused,
        others=others,
        dropped=dropped,
    )


def _companions(protos: Iterable[pb.Companion]) -> tuple[tuple[Companion, ...], tuple[int, str]]:
    """Return the further clients, and how many are left out, with what is wrong with the first."""
    left = iter(protos)
    read: list[Companion] = []
    dropped, why = 0, ""
    for proto in islice(left, MAX_COMPANIONS):
        try:
            read.append(_companion(proto))
        except (InvalidClientId, MalformedMessage) as error:
            dropped, why = dropped + 1, why or str(error)
    if more := sum(1 for _ in left):
        dropped, why = (
            dropped + more,
            why or f"more than {MAX_COMPANIONS} others in a message",
        )
    return tuple(read), (dropped, why)


def _companion(proto: pb.Companion) -> Companion:
    client_id, greeting = check_client_id(proto.client_id), proto.greeting
    if len(greeting) > MAX_INSTANCE:
        raise MalformedMessage(f"a greeting of {len(greeting)} characters: {MAX_INSTANCE} at most")
    if not proto.properties:
        return Companion(client_id, greeting=greeting)
    refused = ""
    if proto.ByteSize() > _FEW_BYTES:  # else they need no counting
        refused = too_many_properties(len(proto.properties), plain_items(proto.properties))
    properties = {} if refused else scalars_from_proto(proto.properties)
    return Companion(client_id, properties, greeting, refused)


def roll_call_to_proto(roll_call: RollCall, proto: pb.RollCall) -> None:
    """Write a roll call."""
    proto.job = roll_call.job
    proto.epoch = roll_call.epoch
    proto.heartbeat_seconds = roll_call.heartbeat_seconds
    proto.run = roll_call.run
    proto.refused = start_of(roll_call.refused)
    proto.hears_others = roll_call.hears_others


def roll_call_from_proto(proto: pb.RollCall) -> RollCall:
    """Read a roll call."""
    refused, heartbeat = start_of(proto.refused), proto.heartbeat_seconds
    return RollCall(proto.job, proto.epoch, heartbeat, proto.run, refused, proto.hears_others)


PRESENCE_BODIES: dict[type, SchemaField] = {
    Presence: SchemaField("presence", presence_to_proto, presence_from_proto),
    RollCall: SchemaField("roll_call", roll_call_to_proto, roll_call_from_proto),
}
