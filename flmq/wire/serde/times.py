"""Convert the course of a task between its dataclass and protobuf.

A worker's times are for drawing, and decide nothing: one that cannot be is left out, and named, and
the message counts all the same.
"""

from __future__ import annotations

from flmq.common.times import MAX_TIMES, WorkerTimes
from flmq.wire.bounds import MAX_UNIX_MS
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb

__all__ = ["times_from_proto", "times_to_proto"]

_LONGEST_NOTE = 200
"""Characters."""


def times_to_proto(times: WorkerTimes, proto: pb.Times) -> None:
    """Write the course of a task; what cannot be sent is left out."""
    proto.SetInParent()
    proto.taken_unix_ms = _sent(times.taken_ms)
    proto.begun_unix_ms = _sent(times.begun_ms)
    proto.training_started_unix_ms = _sent(times.training_started_ms)
    proto.training_ended_unix_ms = _sent(times.training_ended_ms)
    proto.upload_started_unix_ms = _sent(times.upload_started_ms)
    proto.deliveries = min(times.deliveries or 0, MAX_TIMES)
    if times.deaths is not None:
        proto.deaths = min(times.deaths, MAX_TIMES)
    if times.note:
        proto.note = times.note.encode(errors="replace").decode()[:_LONGEST_NOTE]


def times_from_proto(proto: pb.Times) -> WorkerTimes:
    """Read the course of a task; its note says what was left out of it, and why."""
    taken, begun = proto.taken_unix_ms, proto.begun_unix_ms
    started, ended = proto.training_started_unix_ms, proto.training_ended_unix_ms
    upload, deliveries = proto.upload_started_unix_ms, proto.deliveries
    deaths = proto.deaths if proto.HasField("deaths") else None
    if (
        0 < taken <= begun <= started <= ended <= upload <= MAX_UNIX_MS
        and deliveries <= MAX_TIMES
        and (deaths is None or deaths <= MAX_TIMES)
    ):
        # As nearly all are: there is nothing to leave out.
        note = proto.note[:_LONGEST_NOTE]
        return WorkerTimes(taken, begun, started, ended, upload, deliveries or None, deaths, note)
    return _what_can_be(proto)


def _what_can_be(proto: pb.Times) -> WorkerTimes:
    steps = (
        ("taken", proto.taken_unix_ms),
        ("begun", proto.begun_unix_ms),
        ("training_started", proto.training_started_unix_ms),
        ("training_ended", proto.training_ended_unix_ms),
        ("upload_started", proto.upload_started_unix_ms),
    )
    note, last, after = proto.note[:_LONGEST_NOTE], 0, ""
    kept: list[int | None] = []
    for name, at in steps:
        known = None
        if not 0 <= at <= MAX_UNIX_MS:
            note = note or f"{name} is no time: {at} ms"
        elif 0 < at < last:
            note = note or f"{name} is {last - at} ms before {after}"
        elif at:
            known, last, after = at, at, name
        kept.append(known)
    deliveries, deaths = proto.deliveries, proto.deaths if proto.HasField("deaths") else None
    if max(deliveries, deaths or 0) > MAX_TIMES:
        note = note or f"{deliveries} deliveries and {deaths or 0} deaths are no numbers"
        deliveries, deaths = 0, None
    taken, begun, training_started, training_ended, upload_started = kept
    return WorkerTimes(
        taken,
        begun,
        training_started,
        training_ended,
        upload_started,
        deliveries or None,
        deaths,
        note,
    )


def _sent(at: int | None) -> int:
    return at if at is not None and 0 <= at <= MAX_UNIX_MS else 0
