"""What the numbers and texts of a message may be: one place for the bounds of every field.

A sender may put anything into any field. What is out of these bounds is no message of flmq: it is
not sent, and where it comes from elsewhere it is laid aside by the field's name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

__all__ = [
    "MAX_EPOCH",
    "MAX_HEARTBEAT",
    "MAX_INSTANCE",
    "MAX_PRESENCE_BYTES",
    "MAX_PROPERTIES",
    "MAX_PROPERTIES_BYTES",
    "MAX_SECONDS",
    "MAX_UNIX_MS",
    "MAX_VERSION",
    "MIN_HEARTBEAT",
    "check_epoch",
    "check_heartbeat",
    "check_instance",
    "check_round",
    "check_seconds",
    "check_unix_ms",
    "check_version",
    "check_word",
    "size_of_properties",
    "too_many_properties",
]

MIN_HEARTBEAT = 0.1
"""Seconds: whoever asked for more of them would have a client do nothing else."""
MAX_HEARTBEAT = 24 * 3600.0
"""Seconds: whoever promised fewer of them would be thought online for days after its death."""
MAX_EPOCH = 4_102_444_800_000
"""Epochs are Unix milliseconds, raised by one where a clock stands: this is the year 2100."""
MAX_INSTANCE = 200
"""Characters of ASCII: it travels as a correlation id, of which AMQP takes 255 bytes."""
MAX_VERSION = 100
"""Characters."""
MAX_PRESENCE_BYTES = 2**20
"""Bytes of a hello, encoded: of one with more properties than are kept, it is told who said it."""
MAX_PROPERTIES = 256
"""Properties that a client may tell of itself."""
MAX_PROPERTIES_BYTES = 64 * 1024
"""Bytes of their names and values."""

MAX_SECONDS = 9e9
"""285 years, which is what Python can wait."""
MAX_UNIX_MS = 253_402_300_799_999
"""The end of the year 9999: Python has no date beyond."""

_MAX_ROUND = 2**53
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INSTANCE = re.compile(rf"[ -~]{{1,{MAX_INSTANCE}}}")


def check_word(word: str, name: str) -> None:
    """Refuse what cannot stand in routing keys and names of queues and files."""
    if _WORD.fullmatch(word) is None:
        raise ValueError(f"{name} {word[:80]!r} is not 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")


def check_seconds(seconds: float, name: str) -> None:
    """Refuse a length of time that is none."""
    if not (math.isfinite(seconds) and 0 <= seconds <= MAX_SECONDS):
        raise ValueError(f"{name} is {seconds}: it must be 0 to {MAX_SECONDS:g}")


def check_heartbeat(seconds: float) -> None:
    """Refuse a time between heartbeats that nobody can keep; 0 says nothing of them."""
    check_seconds(seconds, "heartbeat_seconds")
    if seconds != 0 and not MIN_HEARTBEAT <= seconds <= MAX_HEARTBEAT:
        raise ValueError(
            f"heartbeat_seconds is {seconds}: it must be 0, or {MIN_HEARTBEAT:g} to "
            f"{MAX_HEARTBEAT:g}"
        )


def check_epoch(epoch: int) -> None:
    """Refuse an epoch that no server can have."""
    if not 0 <= epoch <= MAX_EPOCH:
        raise ValueError(f"epoch is {epoch}: it must be 0 to {MAX_EPOCH}, Unix milliseconds")


def check_round(number: int) -> None:
    """Refuse a round that no run comes to."""
    if not 0 <= number <= _MAX_ROUND:
        raise ValueError(f"server_round is {number}: it must be 0 to {_MAX_ROUND}")


def check_unix_ms(milliseconds: int, name: str) -> None:
    """Refuse a time of the clock that Python has no date for; 0 says nothing of it."""
    if not 0 <= milliseconds <= MAX_UNIX_MS:
        raise ValueError(f"{name} is {milliseconds}: it must be 0 to {MAX_UNIX_MS}")


def check_instance(instance: str) -> None:
    """Refuse a process's name that cannot be a correlation id."""
    if _INSTANCE.fullmatch(instance) is None:
        raise ValueError(
            f"instance {instance[:40]!r} of {len(instance)} characters is not 1 to {MAX_INSTANCE} "
            "of ASCII"
        )


def check_version(version: str) -> None:
    """Refuse a version that is a text of any length."""
    if len(version) > MAX_VERSION:
        raise ValueError(f"flmq_version has {len(version)} characters: {MAX_VERSION} at most")


def too_many_properties(count: int, items: Iterable[tuple[object, object]]) -> str:
    """Why ``count`` properties, ``items``, are more than are kept; empty if they are not."""
    if count > MAX_PROPERTIES:
        return f"{count} properties: {MAX_PROPERTIES} at most"
    size = size_of_properties(items)
    if size > MAX_PROPERTIES_BYTES:
        return f"properties of {size} bytes: {MAX_PROPERTIES_BYTES} at most"
    return ""


def size_of_properties(items: Iterable[tuple[object, object]]) -> int:
    """Bytes of the names and values of properties."""
    return sum(_size(name) + _size(value) for name, value in items)


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    return len(value) if isinstance(value, bytes) else 8
