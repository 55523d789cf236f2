"""Simulate thousands of clients in one process, with the same code as over a broker."""

from __future__ import annotations

from flmq.simulation.app import start_simulation

__all__ = ["start_simulation"]
