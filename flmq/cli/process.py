"""What every command sets up for its process: the error boundary, signals, and its log."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flmq.cli.exit_codes import ExitCode, exit_code_of
from flmq.cli.saying import say, says_json
from flmq.cli.stopping import TYPED_BROKER
from flmq.cli.verbosity import level_of_log
from flmq.common.cleaning import clean_text
from flmq.common.environment import BROKER_URL
from flmq.common.errors import FlmqError
from flmq.common.failure_text import error_text
from flmq.common.files import make_folder
from flmq.common.logger import LOGGER_NAME, console_formatter, file_handler
from flmq.common.tracebacks import user_traceback
from flmq.common.urls import redact_url
from flmq.server.lifecycle import job_lock as charge

__all__ = [
    "SAFELY_FLMQ",
    "begun_by",
    "boundary",
    "hide_broker_url",
    "log_to_file",
    "log_to_stderr",
    "say_who_is_in_charge",
]

SAFELY_FLMQ = ["-P", "-m", "flmq"]
"""Arguments for Python to run flmq without importing from the current folder (``-P``)."""


@contextmanager
def boundary() -> Iterator[None]:
    """Convert what a command raises to one message and an exit status.

    flmq's own errors say what to do: their text suffices, and the traceback is shown with
    ``--debug`` (or ``FLMQ_DEBUG=1``). Anything else may be the user's code: the traceback is shown.
    """
    try:
        yield
    except FlmqError as error:
        _complain(error, with_traceback=bool(os.environ.get("FLMQ_DEBUG")))
        raise SystemExit(exit_code_of(error)) from None
    except KeyboardInterrupt as error:
        raise SystemExit(exit_code_of(error)) from None
    except Exception as error:
        _complain(error, with_traceback=True)
        raise SystemExit(ExitCode.INTERNAL) from None


def _complain(error: Exception, *, with_traceback: bool) -> None:
    """Write the error, with its traceback from the user's code on (all of it with ``--debug``)."""
    if says_json():
        say(f"{type(error).__name__}: {error_text(error).rstrip()}", "CRITICAL", error)
        return
    if with_traceback:
        whole = bool(os.environ.get("FLMQ_DEBUG"))
        trace = "".join(traceback.format_exception(error)) if whole else user_traceback(error)
        sys.stderr.write(clean_text(trace))
    text = error_text(error).rstrip()
    sys.stderr.write(clean_text(f"flmq: {type(error).__name__}: {text}") + "\n")


def hide_broker_url() -> None:
    """Remove a broker's URL from our command line, which everybody on the machine can read.

    The process re-executes itself with the URL in its environment. Windows shows command lines to
    their owner only, and cannot re-execute.
    """
    if os.name == "nt":
        return
    for position, argument in enumerate(sys.argv[1:], start=1):
        if argument == "--broker" and position + 1 < len(sys.argv):
            url, rest = sys.argv[position + 1], sys.argv[position + 2 :]
        elif argument.startswith("--broker="):
            url, rest = argument.removeprefix("--broker="), sys.argv[position + 1 :]
        else:
            continue
        if url == redact_url(url):
            return  # no password in it
        argv = [sys.executable, *begun_by(), *sys.argv[1:position], *rest]
        env = {**os.environ, BROKER_URL: url, TYPED_BROKER: redact_url(url)}
        os.execve(sys.executable, argv, env)  # noqa: S606  ourselves


def begun_by() -> list[str]:
    """Return how Python was started, before our arguments, so that re-executing imports the same.

    ``-m flmq`` in place of a script would put the current folder first on the path.
    """
    arguments = sys.argv[1:]
    begun = sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]
    if begun and [*begun, *arguments] == sys.orig_argv[1:]:
        return begun
    return SAFELY_FLMQ


def log_to_stderr(level: int) -> None:
    """Write flmq's log to standard error, from ``level`` up, or as `verbosity` has it."""
    _add(logging.StreamHandler(sys.stderr), level_of_log(level))


def say_who_is_in_charge() -> None:
    """Write to standard error that a server stands by or takes over, before any view starts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(console_formatter())
    logging.getLogger(charge.__name__).addHandler(handler)


def log_to_file(path: Path, level: int = logging.INFO) -> None:
    """Write flmq's log to the file ``path``, from ``level`` up."""
    make_folder(path.parent)
    _add(file_handler(path), level)


def _add(handler: logging.Handler, level: int) -> None:
    handler.setLevel(level)
    handler.setFormatter(console_formatter())
    logger = logging.getLogger(LOGGER_NAME)
    logger.addHandler(handler)
    logger.setLevel(min(level, logger.level or level))
    logger.propagate = False
