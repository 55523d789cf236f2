"""Durations as people read them."""

from __future__ import annotations

__all__ = ["clock_text"]


def clock_text(seconds: float) -> str:
    """Return "0:07", "3:05" or "2:03:05", of whole seconds."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
