"""The entries of a partial sum as bytes: one after the other, each after its length.

Each has the budget of a message of its own, as its reply had, and all together have one of their
own (`MAX_SUM_VALUES`), so that many together may be more than one message holds. A reader never has
more than one of them in protobuf's objects.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from flmq.common.errors import InvalidClientId, MalformedMessage
from flmq.common.typing import FitRes
from flmq.wire.budget import MAX_SUM_VALUES, OverBudget, check_budget, count_values
from flmq.wire.checks import check_entry
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.regional import MAX_ASKED, PartialEntry
from flmq.wire.serde.regional import entry_from_proto, entry_to_proto

__all__ = ["MAX_SUM_VALUES", "read_entries", "values_at_most", "write_entries"]

_LENGTH = 4
_OF_AN_ENTRY, _OF_A_METRIC = 32, 4
"""Values of an entry, at most, without its metrics; and those of a metric."""
_COUNTED_FROM = 2 * MAX_SUM_VALUES
"""Bytes below which entries cannot hold too much, as a value takes two."""


def values_at_most(res: object) -> int:
    """Return the most values that an entry of ``res`` counts for (`MAX_SUM_VALUES`)."""
    metrics = res.metrics if isinstance(res, FitRes) else {}
    return _OF_AN_ENTRY + _OF_A_METRIC * len(metrics)


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
    left = MAX_SUM_VALUES if len(view) > _COUNTED_FROM else None
    entries: list[PartialEntry] = []
    while at < len(view):
        if len(entries) >= most:
            raise MalformedMessage(f"a partial sum of more than {most} entries")
        start = at + _LENGTH
        at = start + int.from_bytes(view[at:start], "big")
        if at > len(view):
            raise MalformedMessage("the entries of a partial sum are cut short")
        entries.append(_read(view[start:at]))
        if left is not None:
            left -= _count(view[start:at], left)
    return entries


def _count(data: memoryview, left: int) -> int:
    try:
        return count_values(data, pb.PartialEntry, left)
    except OverBudget:
        raise MalformedMessage(
            f"the entries of a partial sum hold more than {MAX_SUM_VALUES} values together"
        ) from None


def _read(data: memoryview) -> PartialEntry:
    try:
        check_budget(data, pb.PartialEntry)
        entry = entry_from_proto(pb.PartialEntry.FromString(bytes(data)))
        check_entry(entry)
    # ValueError: a field out of bounds, too large, or text that is not UTF-8.
    except (DecodeError, InvalidClientId, ValueError, RecursionError) as error:
        raise MalformedMessage(f"an entry of a partial sum cannot be read: {error}") from error
    return entry
