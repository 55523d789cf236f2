"""Settings from environment variables, which all begin with ``FLMQ_``."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from flmq.common.errors import UsageError
from flmq.common.urls import parse_broker_url

__all__ = [
    "BROKER_URL",
    "LOG_FORMAT",
    "METRICS_PORT",
    "RUNS_DIR",
    "InvalidLogFormat",
    "LogFormat",
    "NoBrokerNamed",
    "broker_url",
    "log_format",
    "runs_dir",
]

BROKER_URL = "FLMQ_BROKER_URL"
RUNS_DIR = "FLMQ_RUNS_DIR"
METRICS_PORT = "FLMQ_METRICS_PORT"
LOG_FORMAT = "FLMQ_LOG_FORMAT"


class LogFormat(StrEnum):
    """How the log is written."""

    TEXT = "text"
    """For people."""
    JSON = "json"
    """For programs: see `flmq.common.json_lines`."""


class InvalidLogFormat(UsageError):
    """The environment names a format of the log that there is not."""


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


def log_format() -> LogFormat:
    """Return the format of the log that ``FLMQ_LOG_FORMAT`` names; for people if it names none.

    Raises:
        InvalidLogFormat: it names one that there is not.
    """
    named = os.environ.get(LOG_FORMAT) or LogFormat.TEXT
    try:
        return LogFormat(named)
    except ValueError:
        formats = " or ".join(LogFormat)
        raise InvalidLogFormat(f"{LOG_FORMAT} is {named!r}: give {formats}") from None
