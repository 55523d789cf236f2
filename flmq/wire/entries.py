"""The entries of a partial sum as bytes: one after the other, each after its length.

Each has the budget of a message of its own, as its reply had, so that many together may be more
than one message holds, and a reader never has more than one of them in protobuf's objects.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from flmq.common.errors import InvalidClientId, MalformedMessage
from flmq.wire.budget import check_budget
from flmq.wire.checks import check_entry
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.regional import MAX_ASKED, PartialEntry
from flmq.wire.serde.regional import entry_from_proto, entry_to_proto

__all__ = ["read_entries", "write_entries"]

_LENGTH = 4


def write_entries(entries: Iterable[PartialEntry]) -> bytes:
    """Return the entries as bytes; equal entries have equal bytes.

    Raises:
        InvalidReturnValue: a value in the contract's types cannot be sent.
        ValueError: a field of an entry is not valid, or it is larger than a message may be.
    """
    parts = []
    for entry in entries:
        check_entry(entry)
        proto = pb.PartialEntry()
        entry_to_proto(entry, proto)
        encoded = proto.SerializeToString(deterministic=True)
        check_budget(encoded, pb.PartialEntry)
        parts += [len(encoded).to_bytes(_LENGTH, "big"), encoded]
    return b"".join(parts)


def read_entries(data: bytes | bytearray | memoryview, most: int = MAX_ASKED) -> list[PartialEntry]:
    """Return the entries in ``data``, of which there may be ``most``.

    Raises:
        MalformedMessage: they are not entries, or too many.
    """
    view, at = memoryview(data).cast("B"), 0
    entries: list[PartialEntry] = []
    while at < len(view):
        if len(entries) >= most:
            raise MalformedMessage(f"a partial sum of more than {most} entries")
        start = at + _LENGTH
        at = start + int.from_bytes(view[at:start], "big")
        if at > len(view):
            raise MalformedMessage("the entries of a partial sum are cut short")
        entries.append(_read(view[start:at]))
    return entries


def _read(data: memoryview) -> PartialEntry:
    try:
        check_budget(data, pb.PartialEntry)
        entry = entry_from_proto(pb.PartialEntry.FromString(bytes(data)))
        check_entry(entry)
    # ValueError: a field out of bounds, too large, or text that is not UTF-8.
    except (DecodeError, InvalidClientId, ValueError, RecursionError) as error:
        raise MalformedMessage(f"an entry of a partial sum cannot be read: {error}") from error
    return entry
