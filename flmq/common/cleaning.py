"""Text from outside, made safe to show: what a peer writes must not steer a terminal or a log."""

from __future__ import annotations

import re

__all__ = ["LONGEST_LINE", "clean_text", "one_line"]

LONGEST_LINE = 400
"""Characters of a line's text from outside; a client decides how long its messages are."""

_REPLACED = "\N{REPLACEMENT CHARACTER}"


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """``text`` on one line, without what steers a terminal, cut to ``longest`` characters."""
    # Cut before the work: there may be megabytes of it, and spaces only shrink.
    flat = _printable(" ".join(text[: 16 * longest].split()))
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def clean_text(text: str, indent: str = "") -> str:
    """``text`` with its line breaks and without what steers a terminal.

    Lines after the first begin with ``indent``, so that none can pass for a line of its own.
    """
    lines = re.split(r"\r\n|[\r\n]", text.expandtabs(4))
    return f"\n{indent}".join(map(_printable, lines))


def _printable(text: str) -> str:
    """Python calls control, format (bidirectional ones too) and unassigned characters unprintable.

    Spaces of other kinds and line separators are unprintable as well.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _REPLACED for char in text)
