"""Errors in words: one form for all that a log, a reply or a person is told of them."""

from __future__ import annotations

from flmq.common.typing import Code, Status

__all__ = ["error_text", "named_error", "named_text", "status_text"]


def error_text(error: BaseException) -> str:
    """What ``error`` says, or the name of its type where it says nothing."""
    return str(error) or type(error).__name__


def named_error(error: BaseException) -> str:
    """``error`` as ``Type: text``, or ``Type`` where it says nothing."""
    return named_text(type(error).__name__, str(error))


def named_text(name: str, text: str) -> str:
    """``name: text``, or the one of the two that is not empty."""
    return f"{name}: {text}".rstrip(": ")


def status_text(status: Status) -> str:
    """``status`` as ``CODE: message``, or ``CODE`` where it has no message."""
    return named_text(Code(status.code).name, status.message)
