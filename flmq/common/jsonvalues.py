"""Encode values that JSON lacks: NaN, infinities, bytes, numpy's numbers.

They are written as ``{"$float": "nan"}`` and ``{"$base64": "..."}``.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

__all__ = ["from_json", "to_json"]


def to_json(value: Any) -> Any:
    """Return ``value`` in a form that JSON can hold."""
    match value:
        case dict():
            return {key: to_json(each) for key, each in value.items()}
        case list() | tuple():
            return [to_json(each) for each in value]
        case bytes():
            return {"$base64": base64.b64encode(value).decode()}
        case np.generic():
            # A user's metric may be a numpy scalar, which JSON does not know.
            return to_json(value.item())
        case float() if not math.isfinite(value):
            return {"$float": repr(value)}
        case _:
            return value


def from_json(value: Any) -> Any:
    """Return the value that `to_json` encoded."""
    match value:
        case {"$base64": str(text)} if len(value) == 1:
            return base64.b64decode(text, validate=True)
        case {"$float": str(text)} if len(value) == 1:
            return float(text)
        case dict():
            return {key: from_json(each) for key, each in value.items()}
        case list():
            return [from_json(each) for each in value]
        case _:
            return value
