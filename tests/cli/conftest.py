"""Federations over both transports."""

from __future__ import annotations

from tests.end_to_end.fixtures import federation, memory_federation, rig

__all__ = ["federation", "memory_federation", "rig"]
