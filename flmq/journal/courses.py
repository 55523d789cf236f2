"""The server's times of a reply in its record; the worker's are in the reply itself."""

from __future__ import annotations

import math
import struct

from flmq.common.times import TaskTimes, WorkerTimes
from flmq.journal.schema import Seal

__all__ = ["course_in", "course_out"]

_COURSE = struct.Struct("<5d")
"""Published, received, counted, offset, its error; in ms, NaN if not known."""


def course_out(seal: Seal, times: TaskTimes | None) -> bytes | None:
    """Return the server's times in stored form."""
    if times is None:
        return None
    values = (
        times.published_ms,
        times.received_ms,
        times.counted_ms,
        times.offset_ms,
        times.offset_error_ms,
    )
    return seal.close(_COURSE.pack(*(math.nan if each is None else each for each in values)))


def course_in(seal: Seal, stored: bytes | None, worker: WorkerTimes | None) -> TaskTimes | None:
    """Return the times of a reply whose worker's own are ``worker``; None: an older flmq's."""
    if stored is None:
        return None
    try:
        values = _COURSE.unpack(seal.open(stored))
    except struct.error as error:
        raise ValueError(f"the times of a reply: {error}") from error
    published, received, counted, offset, off_by = values
    return TaskTimes(
        _whole(published), _whole(received), _whole(counted), worker, _known(offset), _known(off_by)
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _whole(value: float) -> int | None:
    return None if math.isnan(value) else int(value)
