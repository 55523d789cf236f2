"""Errors of opening a port for metrics."""

from __future__ import annotations

from flmq.common.errors import UsageError

__all__ = ["MetricsNotInstalled", "MetricsPortInUse"]


class MetricsNotInstalled(UsageError):
    """The library that writes metrics is not installed."""

    def __init__(self) -> None:
        """Name the extra."""
        super().__init__(
            "--metrics-port needs prometheus-client, which is not installed: "
            "pip install 'flmq[metrics]'"
        )


class MetricsPortInUse(UsageError):
    """The port for metrics cannot be opened."""

    def __init__(self, address: str, port: int, why: str) -> None:
        """Name the ``address`` and ``port``, and ``why``."""
        super().__init__(
            f"metrics cannot be served at {address}, port {port}: {why}. Give a --metrics-port "
            "that is free (0: any), and a --metrics-address of this machine"
        )
