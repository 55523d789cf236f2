"""The tables' way into docs/performance.md: each between its two markers, all else untouched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks import tables
from benchmarks.results import Report

__all__ = ["PAGE", "PICTURE", "fill", "sections"]

_DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = _DOCS / "performance.md"
PICTURE = _DOCS / "images" / "performance.png"


def sections(report: Report) -> dict[str, str]:
    """Return what the report has to say, by the name of its markers."""
    found = {"machine": tables.machine_table(report)}
    if report.speed:
        found["speed"] = tables.speed_table(report)
        found["cpu"] = tables.cpu_table(report)
        found["traffic"] = tables.traffic_table(report)
    if report.memory:
        found["memory"] = tables.memory_table(report)
    for name, text in report.texts.items():
        # A page has tables where the benchmark prints them, and its words as they are where not.
        found[name] = text if text.lstrip().startswith(("|", "#")) else f"```text\n{text}```\n"
    return found


def fill(text: str, contents: Mapping[str, str]) -> str:
    """Put each of ``contents`` between ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Raises `ValueError` for one whose markers are not there.
    """
    for name, content in contents.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        between = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
        text, found = between.subn(lambda m, new=content: f"{m[1]}{new}{m[2]}", text)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"the page has {found} times {begin} ... {end}: it needs one of them")
    return text
