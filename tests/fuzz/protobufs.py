"""Protobuf's wire format taken apart and put together again, also as no encoder would write it.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.values import BYTES, DOUBLES, INTEGERS, TEXTS, mutated_bytes

__all__ = ["Field", "Fields", "length_delimited", "mutated", "parse", "random_message", "varint"]

_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)


@dataclass(frozen=True, slots=True)
class Field:
    """A field as it is on the wire."""

    number: int
    wire: int
    value: int | bytes | tuple[Field, ...]
    """Of a message that the schema knows, its fields."""
    kind: Descriptor | None = None
    """The message's type."""
    lie: int = 0
    """How much longer it says that it is."""


Fields = tuple[Field, ...]


def varint(number: int) -> bytes:
    """Encode an unsigned number, of any size."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def length_delimited(number: int, value: bytes) -> bytes:
    """Encode a field of bytes, a text or a message."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def parse(data: bytes, of: Descriptor) -> Fields:
    """Take a valid message apart."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            fields.append(Field(number, wire, value))
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        else:
            length = 8 if wire == _FIXED64 else 4
        part, at = data[at : at + length], at + length
        known = of.fields_by_number.get(number)
        if wire == _BYTES and known is not None and known.type == FieldDescriptor.TYPE_MESSAGE:
            kind = known.message_type
            assert kind is not None
            fields.append(Field(number, wire, parse(part, kind), kind))
        else:
            fields.append(Field(number, wire, part))
    return tuple(fields)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at


def write(fields: Sequence[Field]) -> bytes:
    """Put a message together."""
    return b"".join(map(_written, fields))


def _written(field: Field) -> bytes:
    key = varint(field.number << 3 | field.wire)
    value = write(field.value) if isinstance(field.value, tuple) else field.value
    if isinstance(value, int):
        return key + varint(value)
    if field.wire == _BYTES:
        return key + varint(max(0, len(value) + field.lie)) + value
    return key + value


def mutated(rng: random.Random, fields: Fields, others: Sequence[Fields]) -> bytes:
    """Return the message with one to three things wrong with it; ``others`` lend their fields."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        fields = _somewhere(rng, fields, rng.choice(others))
    data = write(fields)
    return mutated_bytes(rng, data) if rng.random() < 0.1 else data


def _somewhere(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    """Change something at a random depth."""
    inside = [place for place, each in enumerate(fields) if isinstance(each.value, tuple)]
    if inside and rng.random() < 0.7:
        place = rng.choice(inside)
        value = fields[place].value
        assert isinstance(value, tuple)
        theirs = rng.choice(other).value if other else ()
        lent = theirs if isinstance(theirs, tuple) else other
        changed = replace(fields[place], value=_somewhere(rng, value, lent))
        return (*fields[:place], changed, *fields[place + 1 :])
    return rng.choice(_CHANGES)(rng, fields, other)


def _drop(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    place = rng.randrange(len(fields) + 1)
    return fields[:place] + fields[place + 1 :]


def _repeat(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    place = rng.randrange(len(fields) + 1)
    return fields[:place] + fields[place : place + 1] * rng.choice((2, 3, 100)) + fields[place:]


def _swap(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    if len(fields) < 2:
        return fields
    one, two = rng.sample(range(len(fields)), 2)
    changed = list(fields)
    changed[one] = replace(fields[two], number=fields[one].number)
    changed[two] = replace(fields[one], number=fields[two].number)
    return tuple(changed)


def _splice(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    return fields[: rng.randrange(len(fields) + 1)] + other[rng.randrange(len(other) + 1) :]


def _renumber(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    number = rng.choice((0, 1, 2, 3, 9, 15, 16, 1000, 19_000, 2**29 - 1, 2**29, 2**40))
    return _at(rng, fields, lambda each: replace(each, number=number))


def _rewire(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    def rewired(each: Field) -> Field:
        value = b"" if isinstance(each.value, int) else each.value
        return replace(each, wire=rng.randrange(8), value=value, kind=None)

    return _at(rng, fields, rewired)


def _lie(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    lie = rng.choice((-1, 1, 2, 7, 100, 2**20, 2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1))
    return _at(rng, fields, lambda each: replace(each, lie=lie))


def _deepen(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    def deeper(each: Field) -> Field:
        data = _written(each)
        for _ in range(rng.choice((1, 10, 99, 101, 1000))):
            data = length_delimited(each.number & 15 or 1, data)
        return Field(each.number, _BYTES, data)

    return _at(rng, fields, deeper)


def _group(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    """Put some fields into groups, which no schema of today has and every reader skips."""
    number, depth = rng.choice((1, 9, 1000)), rng.choice((1, 2, 99, 101))
    start, end = Field(number, _GROUP, b""), Field(number, _GROUP_END, b"")
    place = rng.randrange(len(fields) + 1)
    inside = fields[place:] if rng.random() < 0.5 else ()
    closed = (end,) * (depth if rng.random() < 0.8 else depth - 1)
    return (*fields[:place], *(start,) * depth, *inside, *closed, *fields[place:])


def _value(rng: random.Random, fields: Fields, other: Fields) -> Fields:
    def changed(each: Field) -> Field:
        match each.value:
            case int():
                return replace(each, value=rng.choice(INTEGERS) & (2**70 - 1))
            case bytes() if each.wire == _FIXED64:
                return replace(each, value=struct.pack("<d", rng.choice(DOUBLES)))
            case bytes() as data:
                return replace(each, value=_other_bytes(rng, data))
        return replace(each, value=_other_bytes(rng, write(each.value)), kind=None)

    return _at(rng, fields, changed)


def _other_bytes(rng: random.Random, data: bytes) -> bytes:
    way = rng.random()
    if way < 0.4:
        return rng.choice(TEXTS)
    return rng.choice(BYTES) if way < 0.6 else mutated_bytes(rng, data)


def _at(rng: random.Random, fields: Fields, change: Callable[[Field], Field]) -> Fields:
    if not fields:
        return fields
    place = rng.randrange(len(fields))
    return (*fields[:place], change(fields[place]), *fields[place + 1 :])


_CHANGES: tuple[Callable[[random.Random, Fields, Fields], Fields], ...] = (
    _drop,
    _repeat,
    _swap,
    _splice,
    _renumber,
    _rewire,
    _lie,
    _deepen,
    _group,
    _value,
    _value,
    _value,
    _value,
)


def random_message(rng: random.Random, kind: type[Message], depth: int = 0) -> Message:
    """Return a message with any of its fields set, to values that some field of the schema has.

    It is made by reflection, so that a field of tomorrow is set too.
    """
    message = kind()
    _fill(rng, message, depth)
    return message


def _fill(rng: random.Random, message: Any, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.25:
            continue
        if _is_map(field):
            for _ in range(rng.randrange(3)):
                entry = getattr(message, field.name)[rng.choice(_NAMES)]
                _fill(rng, entry, depth + 1)
        elif hasattr(getattr(message, field.name), "extend"):  # a repeated field
            for _ in range(rng.randrange(4)):
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    if depth < 8:
                        _fill(rng, getattr(message, field.name).add(), depth + 1)
                else:
                    getattr(message, field.name).append(_scalar(rng, field))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth < 8:
                getattr(message, field.name).SetInParent()
                _fill(rng, getattr(message, field.name), depth + 1)
        else:
            setattr(message, field.name, _scalar(rng, field))


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def _scalar(rng: random.Random, field: FieldDescriptor) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return "a" * 64 if field.name in ("digest", "base") else rng.choice(_NAMES)
        case FieldDescriptor.TYPE_BYTES:
            return rng.choice(BYTES)
        case FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return rng.choice((0.0, 1.0, 30.0))
        case FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            return rng.choice(field.enum_type.values).number
    return rng.choice((0, 1, 2, 1000, 2**20))


_NAMES = ("alice", "job-1", "eu", "t1", "r1", "numpy.ndarray", "zstd", "", "w/layer.0")
