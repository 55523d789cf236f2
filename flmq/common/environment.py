"""Settings from environment variables, which all begin with ``FLMQ_``."""

from __future__ import annotations

import os
from pathlib import Path

from flmq.common.errors import UsageError
from flmq.common.urls import parse_broker_url

__all__ = ["BROKER_URL", "METRICS_PORT", "RUNS_DIR", "NoBrokerNamed", "broker_url", "runs_dir"]

BROKER_URL = "FLMQ_BROKER_URL"
RUNS_DIR = "FLMQ_RUNS_DIR"
METRICS_PORT = "FLMQ_METRICS_PORT"


class NoBrokerNamed(UsageError):
    """Neither an argument nor the environment names a broker."""

    def __init__(self) -> None:
        """Set a message that says how to name a broker."""
        super().__init__(
            "no broker is named: give its URL, amqp://user:password@host:5672/vhost, or set "
            f"{BROKER_URL}; `flmq broker up` starts one on this machine"
        )


def broker_url(given: str | None) -> str:
    """Return ``given``, or else the broker URL in ``FLMQ_BROKER_URL``.

    Raises:
        NoBrokerNamed: neither is set.
        InvalidBrokerUrl: it is not a broker URL.
    """
    url = given or os.environ.get(BROKER_URL)
    if not url:
        raise NoBrokerNamed
    parse_broker_url(url)
    return url


def runs_dir(given: Path | str | None) -> Path:
    """Return the folder for runs: ``given``, or else ``FLMQ_RUNS_DIR``, or else ``runs``."""
    return Path(given or os.environ.get(RUNS_DIR) or "runs")
