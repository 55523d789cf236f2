"""A federation on the memory broker."""

from __future__ import annotations

from tests.end_to_end.fixtures import memory_federation

__all__ = ["memory_federation"]
