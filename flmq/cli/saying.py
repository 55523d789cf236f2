"""What a command itself says to whoever started it, in the format of its log."""

from __future__ import annotations

import os
import sys
import time

from flmq.common.environment import LOG_FORMAT, LogFormat
from flmq.common.json_lines import json_line
from flmq.common.logger import LOGGER_NAME

__all__ = ["say", "says_json"]


def says_json() -> bool:
    """Return whether whoever reads our output is a program; never raises."""
    return os.environ.get(LOG_FORMAT) == LogFormat.JSON


def say(text: str, level: str = "INFO", error: BaseException | None = None) -> None:
    """Write one line to standard error: ``flmq: text``, or as the log's lines are written."""
    if says_json():
        sys.stderr.write(json_line(time.time(), level, LOGGER_NAME, text, error=error) + "\n")
    else:
        sys.stderr.write(f"flmq: {text}\n")
