"""Convert scalars and numbers between Python, numpy and protobuf.

Values returned by a user's code are checked here when sent: there the error can still name the
field, the key and the type, to the one who can fix it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from google.protobuf.internal.containers import MessageMap

from flmq.common.errors import InvalidReturnValue, MalformedMessage
from flmq.common.typing import Scalar
from flmq.wire.proto.flmq.v1 import scalar_pb2 as pb

__all__ = [
    "expect",
    "integer",
    "plain_items",
    "real",
    "scalar_from_proto",
    "scalar_to_proto",
    "scalars_from_proto",
    "scalars_to_proto",
    "text",
]

_T = TypeVar("_T")
_INT64 = range(-(2**63), 2**63)


def scalars_to_proto(values: object, proto: MessageMap[str, pb.Scalar], where: str) -> None:
    """Copy a dict of scalars into ``proto``, converting numpy's to Python types.

    ``where`` names the dict in errors, such as ``FitRes.metrics``.

    Raises:
        InvalidReturnValue: not a dict, or a key or value that cannot be sent; names which.
    """
    if not isinstance(values, Mapping):
        raise InvalidReturnValue(f"{where} is a {_name(values)}: it must be a dict of scalars")
    for key, value in values.items():
        if not isinstance(key, str):
            raise InvalidReturnValue(f"{where} has the key {key!r} ({_name(key)}): use str keys")
        place = f"{where}[{key!r}]"
        scalar_to_proto(value, proto[text(key, f"a key of {where}")], place)


def scalars_from_proto(proto: MessageMap[str, pb.Scalar]) -> dict[str, Scalar]:
    """Return a dict of scalars sorted by key (protobuf's maps are unordered).

    Raises:
        MalformedMessage: a scalar without a value.
    """
    return {key: scalar_from_proto(proto[key], key) for key in sorted(proto)}


def plain_items(proto: MessageMap[str, pb.Scalar]) -> Iterator[tuple[str, object]]:
    """Yield each key and its value (None if it has none)."""
    for key, value in proto.items():
        kind = value.WhichOneof("kind")
        yield key, None if kind is None else getattr(value, kind)


def expect(value: object, kind: type[_T], where: str) -> _T:
    """Return ``value`` if it is of type ``kind``.

    Raises:
        InvalidReturnValue: it is not.
    """
    if not isinstance(value, kind):
        raise InvalidReturnValue(f"{where} is a {_name(value)}: it must be a {kind.__name__}")
    return value


def integer(value: object, where: str) -> int:
    """Return a whole number, Python's or numpy's, as an int that fits signed 64 bits.

    Raises:
        InvalidReturnValue: it is not such a number.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # asking is the point
    except TypeError:
        raise InvalidReturnValue(f"{where} is a {_name(value)}: it must be an int") from None
    if number not in _INT64:
        raise InvalidReturnValue(f"{where} does not fit 64 bits with sign: {_shown(number)}")
    return number


def real(value: object, where: str) -> float:
    """Return a real number, Python's or numpy's, as a double.

    Raises:
        InvalidReturnValue: it is not such a number.
    """
    if isinstance(value, int | float | np.integer | np.floating):
        try:
            return float(value)
        except OverflowError:
            raise InvalidReturnValue(f"{where} does not fit a double: {_shown(value)}") from None
    raise InvalidReturnValue(f"{where} is a {_name(value)}: it must be a float")


def text(value: object, where: str) -> str:
    """Return a str that UTF-8 can encode.

    Raises:
        InvalidReturnValue: it is not.
    """
    string = str(expect(value, str, where))
    try:
        string.encode()
    except UnicodeEncodeError as error:
        raise InvalidReturnValue(f"{where} is no valid Unicode text: {error}") from None
    return string


def scalar_to_proto(value: object, proto: pb.Scalar, where: str) -> None:
    """Set the one field of ``proto`` that keeps the value's type."""
    # bool first: it is a subclass of int.
    if isinstance(value, bool | np.bool_):
        proto.bool_value = bool(value)
    elif isinstance(value, int | np.integer):
        proto.int_value = integer(value, where)
    elif isinstance(value, float | np.floating):
        proto.float_value = real(value, where)
    elif isinstance(value, str):
        proto.str_value = text(value, where)
    elif isinstance(value, bytes):
        proto.bytes_value = bytes(value)
    else:
        raise InvalidReturnValue(
            f"{where} is a {_name(value)}: allowed are bool, int, float, str and bytes "
            "(numpy's scalars are converted; call .item() on an array or tensor of one element)"
        )


def scalar_from_proto(proto: pb.Scalar, key: str) -> Scalar:
    """Return the value of whichever field is set."""
    kind = proto.WhichOneof("kind")
    if kind is None:
        raise MalformedMessage(f"scalar {key!r} has no value of a kind known here")
    value: Scalar = getattr(proto, kind)
    return value


def _name(value: object) -> str:
    """Return the name of a value's type for errors."""
    return "None" if value is None else type(value).__name__


def _shown(number: object) -> str:
    """Return a number as text, however long (CPython refuses to print ints beyond 4300 digits)."""
    if isinstance(number, int) and number.bit_length() > 200:
        return f"an int of {number.bit_length()} bits"
    return str(number)
