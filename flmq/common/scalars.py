"""Check dictionaries of scalars that users return, and convert other libraries' numbers.

A number is whatever has one: numpy's scalars, and 0-d arrays of any library (numpy, PyTorch, JAX),
which all have ``shape`` and ``item()``. No library is imported for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from numbers import Real

import numpy as np

from flmq.common.errors import InvalidReturnValue
from flmq.common.typing import Scalar

__all__ = ["as_count", "as_real", "check_scalars", "plain_scalar", "sendable_scalars"]

_INT64 = range(-(2**63), 2**63)


def plain_scalar(value: object) -> Scalar | None:
    """Return ``value`` as a `Scalar` (numpy scalars become Python's), or None if it is not one.

    An int outside the signed 64-bit range is not one: the wire format cannot hold it.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and value not in _INT64:
        return None
    return value if isinstance(value, bool | bytes | float | int | str) else None


def as_real(value: object) -> float | None:
    """Return a real number of any kind as a float, or None if ``value`` is none; nor is a bool."""
    number = _tried(value)
    return (
        float(number) if isinstance(number, int | float) and not isinstance(number, bool) else None
    )


def as_count(value: object) -> int | None:
    """Return a whole number of any kind, such as 10.0, as an int; None if ``value`` is none."""
    number = _tried(value)
    if isinstance(number, float):
        return int(number) if number.is_integer() else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def check_scalars(values: object, what: str) -> dict[str, Scalar]:
    """Return a copy of the dictionary ``values`` with plain Python scalars.

    Numpy scalars, 0-d arrays and other real numbers are converted to Python's.

    ``what`` names the dictionary in errors, such as "the metrics that fit returned".

    Raises:
        InvalidReturnValue: not a dictionary, a key that is not a str, or a value that is no
            `Scalar`.
    """
    if not isinstance(values, Mapping):
        raise InvalidReturnValue(
            f"{what} are a {type(values).__name__}, not a dict: give a dict such as "
            '{"accuracy": 0.95}, or {} for none'
        )
    plain: dict[str, Scalar] = {}
    for key, value in values.items():
        scalar = plain_scalar(_tried(value))
        if not isinstance(key, str) or scalar is None:
            raise InvalidReturnValue(
                f"{what} hold {key!r}: {_shown(value)}. Keys are str, values bool, bytes, float, "
                "int (of 64 bits) or str: convert it, or give one entry for each number"
            )
        plain[key] = scalar
    return plain


def sendable_scalars(values: object) -> tuple[dict[str, Scalar], list[str]]:
    """Return the part of the dictionary ``values`` that can be sent, and texts about the rest.

    Numpy scalars, 0-d arrays and other real numbers are converted to Python's. Never raises,
    whatever ``values`` is.
    """
    if not isinstance(values, Mapping):
        return {}, [] if values is None else [_shown(values)]
    kept: dict[str, Scalar] = {}
    left_out: list[str] = []
    for key, value in values.items():
        try:
            scalar = plain_scalar(_number(value))
            if isinstance(key, str) and _is_text(key) and scalar is not None and _is_text(scalar):
                kept[key] = scalar
                continue
        except Exception:  # noqa: S110  the value's own code: what it cannot give is left out
            pass
        left_out.append(f"{key!r:.60}: {_shown(value)}")
    return kept, left_out


def _number(value: object) -> object:
    """Return ``value`` as a Python number if it is a number, otherwise unchanged.

    Raises whatever the value's own code raises.
    """
    item = getattr(value, "item", None)
    if callable(item) and not isinstance(value, np.longdouble):
        if getattr(value, "shape", None) != ():
            return value
        value = item()
    if isinstance(value, Real | Decimal) and not isinstance(value, bool | int):
        return float(value)
    return value


def _tried(value: object) -> object:
    """Return ``value`` as a Python number if it is one that can be had, otherwise unchanged."""
    try:
        return _number(value)
    except Exception:
        return value


def _is_text(value: Scalar) -> bool:
    """Return False for a str that UTF-8 cannot encode, True for everything else."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True


def _shown(value: object) -> str:
    """Return type and beginning of a value that cannot be sent."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        return type(value).__name__
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
