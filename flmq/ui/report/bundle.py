"""The page's own modules and styles within one file.

A module is a ``data:`` URL, and has no folder: so modules are named as in an import map, and the
relative paths by which they import each other are replaced by those names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
from pathlib import Path

__all__ = ["MAIN", "integrity", "module_map", "styles"]

MAIN = "flmq/main.js"
"""The name of the module that begins the page."""

_IMPORT = re.compile(r"""(\bfrom\s*|\bimport\s*\(\s*|\bimport\s*)(["'])(\.{1,2}/[^"']+)\2""")


def module_map(static: Path) -> str:
    """Return the import map of all modules in ``static``, as JSON without a ``<``."""
    imports = {
        f"flmq/{name}": _data_url("text/javascript", _renamed(path.read_text("utf-8"), name))
        for path in sorted(static.rglob("*.js"))
        for name in [path.relative_to(static).as_posix()]
    }
    return json.dumps({"imports": imports}).replace("<", "\\u003c")


def styles(static: Path) -> list[tuple[str, str]]:
    """Return the name and the URL of each style sheet."""
    return [
        (path.stem, _data_url("text/css", path.read_text("utf-8")))
        for path in sorted(static.rglob("*.css"), key=lambda path: (len(path.parts), path))
    ]


def integrity(script: str) -> str:
    """Return the source expression by which a policy allows an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _renamed(text: str, name: str) -> str:
    folder = posixpath.dirname(name)

    def named(match: re.Match[str]) -> str:
        where = posixpath.normpath(posixpath.join("flmq", folder, match.group(3)))
        return f"{match.group(1)}{match.group(2)}{where}{match.group(2)}"

    return _IMPORT.sub(named, text)


def _data_url(kind: str, text: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"
