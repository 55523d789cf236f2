"""Bounds of the numbers and texts in messages, in one place for every field.

A sender may put anything into any field. A message with a field out of these bounds is not sent; if
received, it is dead-lettered, and the reason names the field.
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
    "check_number",
    "check_round",
    "check_seconds",
    "check_unix_ms",
    "check_version",
    "check_word",
    "size_of_properties",
    "too_many_properties",
]

MIN_HEARTBEAT = 0.1
"""Seconds: with a shorter interval, a client would do nothing but send heartbeats."""
MAX_HEARTBEAT = 24 * 3600.0
"""Seconds: with a longer interval, a client would count as online for days after its death."""
MAX_EPOCH = 4_102_444_800_000
"""Epochs are Unix milliseconds, incremented if the clock has not moved: this is the year 2100."""
MAX_INSTANCE = 200
"""ASCII characters: it is sent as a correlation id, which AMQP limits to 255 bytes."""
MAX_VERSION = 100
"""Characters."""
MAX_PRESENCE_BYTES = 2**20
"""Bytes of an encoded hello. One with too many properties still says whose it is."""
MAX_PROPERTIES = 256
"""Number of properties that a client may have."""
MAX_PROPERTIES_BYTES = 64 * 1024
"""Total bytes of their names and values."""

MAX_SECONDS = 9e9
"""Longest wait that Python supports: 285 years."""
MAX_UNIX_MS = 253_402_300_799_999
"""The end of the year 9999, Python's last date."""

_MAX_ROUND = 2**53
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INSTANCE = re.compile(rf"[ -~]{{1,{MAX_INSTANCE}}}")


def check_word(word: str, name: str) -> None:
    """Raise ValueError unless ``word`` is valid in routing keys, queue names and file names."""
    if _WORD.fullmatch(word) is None:
        raise ValueError(f"{name} {word[:80]!r} is not 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")


def check_seconds(seconds: float, name: str) -> None:
    """Raise ValueError unless ``seconds`` is a valid duration."""
    if not (math.isfinite(seconds) and 0 <= seconds <= MAX_SECONDS):
        raise ValueError(f"{name} is {seconds}: it must be 0 to {MAX_SECONDS:g}")


def check_heartbeat(seconds: float) -> None:
    """Raise ValueError unless the heartbeat interval is 0 (unspecified) or within bounds."""
    check_seconds(seconds, "heartbeat_seconds")
    if seconds != 0 and not MIN_HEARTBEAT <= seconds <= MAX_HEARTBEAT:
        raise ValueError(
            f"heartbeat_seconds is {seconds}: it must be 0, or {MIN_HEARTBEAT:g} to "
            f"{MAX_HEARTBEAT:g}"
        )


def check_epoch(epoch: int) -> None:
    """Raise ValueError unless ``epoch`` is in range."""
    if not 0 <= epoch <= MAX_EPOCH:
        raise ValueError(f"epoch is {epoch}: it must be 0 to {MAX_EPOCH}, Unix milliseconds")


def check_round(number: int) -> None:
    """Raise ValueError unless the round number is in range."""
    if not 0 <= number <= _MAX_ROUND:
        raise ValueError(f"server_round is {number}: it must be 0 to {_MAX_ROUND}")


def check_number(number: int, name: str) -> None:
    """Raise ValueError unless ``number``, a count or a size in bytes, is in range."""
    if not 0 <= number <= _MAX_ROUND:
        raise ValueError(f"{name} is {number}: it must be 0 to {_MAX_ROUND}")


def check_unix_ms(milliseconds: int, name: str) -> None:
    """Raise ValueError unless ``milliseconds`` is 0 (unspecified) or a valid Python date."""
    if not 0 <= milliseconds <= MAX_UNIX_MS:
        raise ValueError(f"{name} is {milliseconds}: it must be 0 to {MAX_UNIX_MS}")


def check_instance(instance: str) -> None:
    """Raise ValueError unless ``instance``, a process's name, can be a correlation id."""
    if _INSTANCE.fullmatch(instance) is None:
        raise ValueError(
            f"instance {instance[:40]!r} of {len(instance)} characters is not 1 to {MAX_INSTANCE} "
            "of ASCII"
        )


def check_version(version: str) -> None:
    """Raise ValueError if the version text is too long."""
    if len(version) > MAX_VERSION:
        raise ValueError(f"flmq_version has {len(version)} characters: {MAX_VERSION} at most")


def too_many_properties(count: int, items: Iterable[tuple[object, object]]) -> str:
    """Return why the ``count`` properties are too many or too large; empty if they are not."""
    if count > MAX_PROPERTIES:
        return f"{count} properties: {MAX_PROPERTIES} at most"
    size = size_of_properties(items)
    if size > MAX_PROPERTIES_BYTES:
        return f"properties of {size} bytes: {MAX_PROPERTIES_BYTES} at most"
    return ""


def size_of_properties(items: Iterable[tuple[object, object]]) -> int:
    """Return the total size in bytes of the names and values of properties."""
    return sum(_size(name) + _size(value) for name, value in items)


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    return len(value) if isinstance(value, bytes) else 8
