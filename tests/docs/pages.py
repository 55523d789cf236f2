"""What the documentation's tests read: pages, and the blocks and commands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("**/*.md"),
        *(ROOT / "deploy").glob("**/*.md"),
        *(ROOT / "examples").glob("**/*.md"),
    ]
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code of a page."""

    language: str
    text: str


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks in ``language``."""
    found = [Block(*match.groups()) for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
    return [block.text for block in found if block.language == language]


def program(page: Path, name: str) -> str:
    """The Python block whose first line is ``# name``, without that line."""
    for text in blocks(page, "python"):
        first, _, rest = text.partition("\n")
        if first == f"# {name}":
            return rest
    raise AssertionError(f"{page.name} has no Python block that begins with '# {name}'")


def commands(page: Path) -> list[str]:
    """The commands that the page tells one to type, in blocks of sh and in running text."""
    lines = [line.strip() for text in blocks(page, "sh") for line in text.splitlines()]
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    lines += [match.group(1) for match in _INLINE.finditer(prose)]
    return [line for line in lines if line and not line.startswith("#")]
