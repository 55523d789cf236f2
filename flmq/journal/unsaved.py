"""Detect which attributes of an object changed: state that a checkpoint should hold.

A strategy without ``state_dict`` is assumed to be stateless, and watched. Values are compared by a
hash of their pickle (buffers of arrays without a copy), so that changes in place show. What cannot
be pickled is taken apart as far as it consists of containers and plain objects; the rest is
compared by identity and, failing that, by ``==``.
"""

from __future__ import annotations

import functools
import pickle
import types
from collections.abc import Collection, Iterator
from hashlib import sha256
from typing import Any

__all__ = ["AttributeWatch"]

_MISSING = object()
_MAX_DEPTH = 20
# Compared by identity and not taken apart: they hold code or external resources.
_WHOLE = (
    type,
    functools.partial,
    types.BuiltinFunctionType,
    types.FunctionType,
    types.MethodType,
    types.ModuleType,
)


class AttributeWatch:
    """Detect which attributes of an object differ from a snapshot. Not thread-safe."""

    def __init__(self, watched: object, ignore: Collection[str] = ()) -> None:
        """Take a snapshot of ``watched``, except the attributes in ``ignore``."""
        self._watched = watched
        self._ignore = frozenset(ignore)
        self._then: dict[str, _Print] = {}
        self.accept()

    def accept(self) -> None:
        """Take a new snapshot."""
        self._then = self._look()

    def changed(self) -> tuple[str, ...]:
        """Return the names of attributes added, removed or changed since the snapshot, in order."""
        now = self._look()
        names = sorted(self._then.keys() | now.keys())
        return tuple(name for name in names if self._then.get(name) != now.get(name))

    def _look(self) -> dict[str, _Print]:
        return {
            name: _Print(value)
            for name, value in _attributes(self._watched)
            if name not in self._ignore
        }


class _Print:
    """Fingerprint of a value."""

    __slots__ = ("_hash", "_objects")

    def __init__(self, value: object) -> None:
        hasher = sha256()
        self._objects: list[object] = []
        self._add(value, hasher, 0, set())
        self._hash = hasher.digest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Print):
            return NotImplemented
        return (
            self._hash == other._hash
            and len(self._objects) == len(other._objects)
            and all(map(_same, self._objects, other._objects))
        )

    __hash__ = None  # type: ignore[assignment]

    def _add(self, value: object, hasher: Any, depth: int, above: set[int]) -> None:
        if _add_pickle(value, hasher):
            return
        parts = _parts(value)
        if parts is None or depth >= _MAX_DEPTH or id(value) in above:
            hasher.update(b"object")
            self._objects.append(value)
            return
        hasher.update(f"{type(value).__qualname__} of {len(parts)}".encode())
        for part in parts:
            self._add(part, hasher, depth + 1, above | {id(value)})


def _add_pickle(value: object, hasher: Any) -> bool:
    """Hash the pickle of ``value``; return False, with nothing hashed, if it has none."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
    except Exception:  # the user's own __reduce__ may raise anything
        return False
    for data in (pickled, *views):
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return True


def _parts(value: object) -> list[object] | None:
    """Return the parts of ``value``; None if it is not to be taken apart."""
    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, _WHOLE):
        return None
    attributes = list(_attributes(value))
    return [part for item in attributes for part in item] or None


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    """Yield the object's own attributes: of its dictionary, and of its classes' slots."""
    yield from list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            found = getattr(value, name, _MISSING)
            if name not in ("__dict__", "__weakref__") and found is not _MISSING:
                yield name, found


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # the result is an array of bools, or the user's own __eq__ raised
        return False
