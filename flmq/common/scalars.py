"""Dictionaries of scalars as users return them: checked, and freed of numpy's scalar types."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flmq.common.errors import InvalidReturnValue
from flmq.common.typing import Scalar

__all__ = ["check_scalars", "plain_scalar"]

_INT64 = range(-(2**63), 2**63)


def plain_scalar(value: object) -> Scalar | None:
    """``value`` as a `Scalar`, None if it is none; numpy's scalars become Python's, same value.

    An int outside 64 bits with sign is none: the wire has no room for it.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and value not in _INT64:
        return None
    return value if isinstance(value, bool | bytes | float | int | str) else None


def check_scalars(values: object, what: str) -> dict[str, Scalar]:
    """Return a copy of the dictionary ``values`` with plain scalars in it.

    ``what`` names the dictionary in the error, such as "the metrics that fit returned".

    Raises:
        InvalidReturnValue: no dictionary, a key that is no str, or a value that is no `Scalar`.
    """
    if not isinstance(values, Mapping):
        raise InvalidReturnValue(
            f"{what} are a {type(values).__name__}, not a dict: give a dict such as "
            '{"accuracy": 0.95}, or {} for none'
        )
    plain: dict[str, Scalar] = {}
    for key, value in values.items():
        scalar = plain_scalar(value)
        if not isinstance(key, str) or scalar is None:
            raise InvalidReturnValue(
                f"{what} hold {key!r}: {_shown(value)}. Keys are str, values bool, bytes, float, "
                "int (of 64 bits) or str: convert it, or give one entry for each number"
            )
        plain[key] = scalar
    return plain


def _shown(value: object) -> str:
    """Type and beginning of a value that cannot be sent."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
