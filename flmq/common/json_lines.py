"""A log for programs: one JSON object a line, whatever is in a message."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime

from flmq.common.cleaning import clean_text

__all__ = ["JsonLines", "json_line"]

_NAMES = {
    "job": "job",
    "run": "run",
    "server_round": "round",
    "phase": "phase",
    "client_id": "client",
    "task_id": "task",
}
"""Attributes of records (`flmq.common.logger.LOG_FIELDS`), and what they are called in a line."""
_LONGEST = 16 * 1024
"""Characters of a text: a peer decides how long what is quoted of it is."""


class JsonLines(logging.Formatter):
    """Formats a record as one line of ASCII: a JSON object.

    It has ``time`` (UTC, milliseconds), ``level``, ``logger`` and ``message``; what the record is
    about, as far as it is known: ``job``, ``run``, ``round``, ``phase``, ``client``, ``task``; and
    ``exception``, an object of ``type``, ``message`` and ``traceback``, if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        about = {
            name: value
            for attribute, name in _NAMES.items()
            if (value := getattr(record, attribute, None)) is not None
        }
        error = record.exc_info[1] if record.exc_info else None
        return json_line(
            record.created, record.levelname, record.name, record.getMessage(), about, error
        )


def json_line(
    unix_time: float,
    level: str,
    logger: str,
    message: str,
    about: dict[str, object] | None = None,
    error: BaseException | None = None,
) -> str:
    """Return a line as `JsonLines` writes them."""
    time = datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="milliseconds")
    fields: dict[str, object] = {
        "time": time.replace("+00:00", "Z"),
        "level": level,
        "logger": logger,
        "message": _cut(message),
    }
    for name, value in (about or {}).items():
        fields[name] = value if isinstance(value, int) else _cut(str(value))
    if error is not None:
        trace = "".join(traceback.format_exception(error))
        fields["exception"] = {
            "type": type(error).__qualname__,
            "message": _cut(_text_of(error)),
            # Its end says where it happened.
            "traceback": clean_text(trace)[-_LONGEST:],
        }
    return json.dumps(fields)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _text_of(error: BaseException) -> str:
    try:
        return clean_text(str(error))
    except Exception:  # a program's own exception, whose text cannot be made
        return "it has no text"
