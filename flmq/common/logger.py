"""flmq's logger, and ``log`` as users of Flower call it: ``log(INFO, "round %s", 3)``."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from pathlib import Path

from flmq.common.cleaning import clean_text
from flmq.common.environment import LogFormat, log_format
from flmq.common.files import append_private
from flmq.common.json_lines import JsonLines

__all__ = [
    "LOGGER_NAME",
    "LOG_FIELDS",
    "about",
    "configure",
    "console_formatter",
    "get_logger",
    "log",
    "logger",
    "logging_about",
    "show_on_console",
]

LOGGER_NAME = "flmq"
LOG_FIELDS = ("job", "run", "server_round", "phase", "client_id", "task_id")
"""Attributes of every log record of flmq that say what it is about: a str, an int or None."""


class _Clean(logging.Filter):
    """Remove from messages what would steer a terminal or pass for another line of the log.

    It filters the logger, not a handler: the text comes from peers, and handlers may be the
    program's own.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = clean_text(record.getMessage(), indent="    "), None
        return True


def about(subject: object = None, **known: object) -> dict[str, object]:
    """Return what a record is about, for the ``extra`` argument of a logging call.

    ``subject`` is anything with attributes named as in `LOG_FIELDS`: a task, a reply, a receipt, an
    event of a run. ``known`` adds fields by the same names.
    """
    fields = {name: getattr(subject, name) for name in LOG_FIELDS if hasattr(subject, name)}
    fields |= known
    # A phase is logged by its name.
    return {
        name: None if value == "" else getattr(value, "value", value)
        for name, value in fields.items()
    }


class _Block:
    """Label what is logged within it; what it is about is looked at only when something is."""

    __slots__ = ("_known", "_outer", "_subject", "_token")

    def __init__(self, subject: object, known: dict[str, object]) -> None:
        self._subject = subject
        self._known = known
        self._outer: _Block | None = None
        self._token: Token[_Block | None] | None = None

    def __enter__(self) -> None:
        self._outer = _block.get()
        self._token = _block.set(self)

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        _block.reset(self._token)

    def fields(self) -> dict[str, object]:
        """Return the fields of this block and of those around it."""
        around = {} if self._outer is None else self._outer.fields()
        return around | about(self._subject, **self._known)


_block: ContextVar[_Block | None] = ContextVar("flmq_about", default=None)


def logging_about(subject: object = None, **known: object) -> AbstractContextManager[None]:
    """Label what this thread logs within the block as being about ``subject``, as in `about`.

    A nested block adds to it; fields given in a logging call itself take precedence.
    """
    return _Block(subject, known)


class _About(logging.Filter):
    """Add the attributes that say what a record is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        block = _block.get()
        known = {} if block is None else block.fields()
        for name in LOG_FIELDS:
            if not hasattr(record, name):
                setattr(record, name, known.get(name))
        return True


def get_logger(name: str) -> logging.Logger:
    """Return the logger ``name``, whose records are cleaned and labelled.

    Filters of flmq's own logger do not apply to records of the loggers below it.
    """
    found = logging.getLogger(name)
    if not found.filters:
        found.addFilter(_Clean())
        found.addFilter(_About())
    return found


logger = get_logger(LOGGER_NAME)
log = logger.log

_CONSOLE_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def console_formatter(date_format: str | None = None) -> logging.Formatter:
    """Return what writes a record as the environment wants it: for people, or as JSON.

    ``date_format`` is that of times for people; None for date and time with milliseconds.

    Raises:
        InvalidLogFormat: the environment names a format that there is not.
    """
    if log_format() is LogFormat.JSON:
        return JsonLines()
    return logging.Formatter(_CONSOLE_FORMAT, datefmt=date_format)


_FILE_FORMAT = "%(asctime)s | %(levelname)s | {identifier} | %(filename)s:%(lineno)d | %(message)s"


def configure(identifier: str, filename: str | None = None) -> None:
    """Also write flmq's log to the file ``filename``, each line with ``identifier``.

    Without a file name, do nothing.

    Raises:
        OSError: the file cannot be opened for appending.
    """
    if filename is None:
        return
    handler = file_handler(Path(filename))
    # A percent sign in the identifier must not become a directive of the format.
    text = _FILE_FORMAT.format(identifier=identifier.replace("%", "%%"))
    handler.setFormatter(logging.Formatter(text))
    logger.addHandler(handler)
    _let_through(logging.DEBUG)


def file_handler(path: Path) -> logging.FileHandler:
    """Return a log handler that appends to the file ``path``; if created, for the owner alone.

    Raises:
        OSError: the file cannot be opened for appending.
    """
    append_private(path).close()
    return logging.FileHandler(path, encoding="utf-8")


def show_on_console(level: int = logging.INFO) -> None:
    """Show flmq's log on standard error, unless the program has configured logging itself.

    Starting a server or a client calls this: a library that is only imported prints nothing.
    """
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(console_formatter("%H:%M:%S"))
    logger.addHandler(handler)
    _let_through(level)


def _let_through(level: int) -> None:
    """Lower the logger's threshold to ``level`` unless the program has set one."""
    if logger.level == logging.NOTSET:
        logger.setLevel(level)
