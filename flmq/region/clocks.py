"""The two clocks of an aggregator, as one value."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clocks"]


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both give seconds."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time
    """Since 1970."""
