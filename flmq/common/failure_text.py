"""Texts of errors: one form for the log, replies and people."""

from __future__ import annotations

from flmq.common.typing import Code, Status

__all__ = ["error_text", "named_error", "named_text", "status_text"]


def error_text(error: BaseException) -> str:
    """Return the text of ``error``, or the name of its type if it has none."""
    return str(error) or type(error).__name__


def named_error(error: BaseException) -> str:
    """Return ``error`` as ``Type: text``, or ``Type`` if it has no text."""
    return named_text(type(error).__name__, str(error))


def named_text(name: str, text: str) -> str:
    """Return ``name: text``, or whichever of the two is not empty."""
    return f"{name}: {text}".rstrip(": ")


def status_text(status: Status) -> str:
    """Return ``status`` as ``CODE: message``, or ``CODE`` if it has no message."""
    return named_text(Code(status.code).name, status.message)
