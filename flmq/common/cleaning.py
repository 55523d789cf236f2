"""Make text from peers safe to show: it must not steer a terminal or forge log lines."""

from __future__ import annotations

import re

__all__ = ["LONGEST_LINE", "clean_text", "one_line"]

LONGEST_LINE = 400
"""Longest line of text from a peer, in characters: a client decides how long its messages are."""

_REPLACED = "\N{REPLACEMENT CHARACTER}"


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return ``text`` on one line, without control characters, cut to ``longest`` characters."""
    # Cut first: there may be megabytes of it, and collapsing spaces only shortens.
    flat = _printable(" ".join(text[: 16 * longest].split()))
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def clean_text(text: str, indent: str = "") -> str:
    """Return ``text`` with its line breaks but without other control characters.

    Lines after the first begin with ``indent``, so that none can pass for a log line of its own.
    """
    lines = re.split(r"\r\n|[\r\n]", text.expandtabs(4))
    return f"\n{indent}".join(map(_printable, lines))


def _printable(text: str) -> str:
    """Replace unprintable characters: control, format (bidirectional ones too), unassigned."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _REPLACED for char in text)
