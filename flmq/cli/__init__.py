"""What a person types: ``flmq server``, ``flmq client``, ``flmq demo`` and their kin."""

from __future__ import annotations

from flmq.cli.main import main

__all__ = ["main"]
