"""What the two sides of an algorithm agree on: names in configs and metrics, and number formats."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

__all__ = [
    "CONTROL_VARIATE",
    "LOST_VARIATE",
    "PROXIMAL_MU",
    "TAU",
    "is_digest",
    "working_dtype",
]

PROXIMAL_MU = "proximal_mu"
"""FedProx, in the config: the weight of the proximal term."""
CONTROL_VARIATE = "control_variate"
"""SCAFFOLD, in config and metrics: the digest of the variate that counts, or is to count."""
LOST_VARIATE = "LostVariate"
"""SCAFFOLD, the name of a client's error: its variate that counts is not in its folder any more."""
TAU = "tau"
"""FedNova, in the metrics: the number of local steps."""

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_digest(value: object) -> bool:
    """Return whether ``value`` is a SHA-256 as 64 hexadecimal digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype for differences between models: of at least float32, so that it has sums."""
    return np.promote_types(dtype, np.float32)
