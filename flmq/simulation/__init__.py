"""Thousands of clients in one process, by the same code as over a broker."""

from __future__ import annotations

from flmq.simulation.app import start_simulation

__all__ = ["start_simulation"]
