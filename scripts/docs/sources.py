"""Files of the repository that pages link to: on the site, each is a page of its own.

So that a link works where a page is read in the repository and on the site, and needs no other
host.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = "source"
_LINK = re.compile(r"(\[[^\]]*\]\()([^)\s]+)(\))")
_LANGUAGES = {
    ".conf": "ini",
    ".json": "json",
    ".py": "python",
    ".service": "ini",
    ".sh": "sh",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}


def page_of(path: str) -> str:
    """Return the page of a file or folder of the repository, both as paths with slashes."""
    if path.startswith("docs/") and path.endswith(".md"):
        return path.removeprefix("docs/")
    if path == "docs":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{FOLDER}/{path}/index.md"
    # A page named README would be taken for its folder's.
    stem = path.removesuffix(".md").replace("README", "about") if path.endswith(".md") else path
    return f"{FOLDER}/{stem}.md"


def linked(text: str, place: str) -> list[str]:
    """Which files and folders of the repository outside of docs/ a page at ``place`` links to."""
    found = (_target(match.group(2), place) for match in _LINK.finditer(text))
    return [path for path in found if path and not (path + "/").startswith("docs/")]


def rewritten(text: str, place: str) -> str:
    """The page's text with its links to the repository's files as links to their pages."""
    here = posixpath.dirname(page_of(place))

    def link(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        path = _target(target, place)
        if path is None or (place.startswith("docs/") and path.startswith("docs/")):
            return match.group(0)
        _, hash_, anchor = target.partition("#")
        return f"{before}{posixpath.relpath(page_of(path), here)}{hash_}{anchor}{after}"

    return _LINK.sub(link, text)


def pages(texts: dict[str, str]) -> dict[str, str]:
    """The pages of all files that these pages link to, and of those that they link to."""
    made: dict[str, str] = {}
    waiting = sorted({path for place, text in texts.items() for path in linked(text, place)})
    while waiting:
        path = waiting.pop()
        if page_of(path) in made:
            continue
        made[page_of(path)] = text = _page(path)
        if path.endswith(".md"):
            waiting += linked((ROOT / path).read_text(encoding="utf-8"), path)
        elif (ROOT / path).is_dir():
            waiting += _inside(path)
        assert text
    return made


def _target(target: str, place: str) -> str | None:
    """The path in the repository that a link of the page at ``place`` leads to, if it does."""
    path = target.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
    return joined if (ROOT / joined).exists() else None


def _inside(path: str) -> list[str]:
    return [
        f"{path}/{each.name}"
        for each in sorted((ROOT / path).iterdir())
        if not each.name.startswith((".", "__pycache__")) and each.suffix != ".png"
    ]


def _page(path: str) -> str:
    head = f"---\nsearch:\n  exclude: true\ntitle: {path}\n---\n\n"
    if (ROOT / path).is_dir():
        here = posixpath.dirname(page_of(path))
        lines = [f"- [{each}]({posixpath.relpath(page_of(each), here)})" for each in _inside(path)]
        return f"{head}# `{path}/`\n\n" + "\n".join(lines) + "\n"
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return head + rewritten(text, path)
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return f"{head}# `{path}`\n\n````{language}\n{text}````\n"
