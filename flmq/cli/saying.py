"""What a command itself says to whoever started it, in the format of its log."""

from __future__ import annotations

import os
import sys
import time

import typer

from flmq.cli.verbosity import Verbosity, verbosity
from flmq.common.environment import LOG_FORMAT, LogFormat
from flmq.common.json_lines import json_line
from flmq.common.logger import LOGGER_NAME

__all__ = ["hint", "say", "say_json", "says_json"]


def says_json() -> bool:
    """Return whether whoever reads our output is a program; never raises."""
    return os.environ.get(LOG_FORMAT) == LogFormat.JSON


def say(text: str, level: str = "INFO", error: BaseException | None = None) -> None:
    """Write one line to standard error: ``flmq: text``, or as the log's lines are written."""
    if level == "INFO" and verbosity() is Verbosity.QUIET:
        return
    if says_json():
        sys.stderr.write(json_line(time.time(), level, LOGGER_NAME, text, error=error) + "\n")
    else:
        sys.stderr.write(f"flmq: {text}\n")


def hint(text: str) -> None:
    """Write to standard error what is of use beside a command's results, unless it is quiet."""
    if says_json():
        say(text)
    elif verbosity() is not Verbosity.QUIET:
        typer.echo(text, err=True)


def say_json() -> None:
    """Write errors as the log for programs does, from now on: the results are for programs."""
    os.environ[LOG_FORMAT] = LogFormat.JSON
