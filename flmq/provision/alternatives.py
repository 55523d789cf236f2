"""A regular expression for a set of words, short where they are alike.

A user may speak for a thousand clients, ``worker-0`` to ``worker-999``; written one beside the
other they would be 10 kB, tried from the first at each publication. As a tree of their beginnings,
in which equal branches are one, they are some fifty characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["any_of"]


def any_of(words: Iterable[str]) -> str:
    """Return an expression, in brackets if it needs some, that matches exactly the ``words``.

    Words have fewer than some hundred characters, for the tree is walked by recursion.
    """
    return _group(sorted(set(words)), 0)


def _group(words: list[str], at: int) -> str:
    """Return what matches the rest, from ``at`` on, of sorted words that begin alike."""
    start = at
    first, last = words[0], words[-1]
    while at < len(first) and at < len(last) and first[at] == last[at]:
        at += 1
    alike = re.escape(first[start:at])
    if len(first) == at and len(words) == 1:
        return alike
    optional = len(first) == at
    branches: dict[str, list[str]] = {}
    rest = words[1:] if optional else words
    while rest:
        letter = rest[0][at]
        count = next((n for n, word in enumerate(rest) if word[at] != letter), len(rest))
        branches.setdefault(_group(rest[:count], at + 1), []).append(letter)
        rest = rest[count:]
    options = "|".join(_one_of(letters) + after for after, letters in branches.items())
    return f"{alike}(?:{options}){'?' if optional else ''}"


def _one_of(letters: list[str]) -> str:
    if len(letters) == 1:
        return re.escape(letters[0])
    return f"[{''.join(re.escape(letter) for letter in letters)}]"
