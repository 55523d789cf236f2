"""Drawings of pages: Mermaid's text in the repository, SVG on the site, without a script.

The site would load Mermaid from another host, or carry 3.5 MB of it. So each drawing is made once
and kept in ``docs/images/diagrams``, named by the digest of its text: a text that was changed has
no drawing, and the site is not built. ``python scripts/docs/diagrams.py mermaid.min.js`` draws it,
with the file of that name of the npm package ``mermaid`` (11.16), and Debian's Chromium.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
DRAWINGS = DOCS / "images" / "diagrams"
_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class NotDrawn(Exception):
    """A diagram of a page has no drawing, or an old one."""


def drawing(text: str) -> Path:
    """Where the drawing of this text is."""
    return DRAWINGS / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.svg"


def drawn(markdown: str) -> str:
    """The page with its drawings in place of their texts.

    Raises:
        NotDrawn: a text was changed since it was drawn.
    """

    def put(match: re.Match[str]) -> str:
        path = drawing(match.group(1))
        if not path.is_file():
            first = match.group(1).partition("\n")[0]
            raise NotDrawn(
                f"the diagram '{first} ...' has no drawing: "
                "python scripts/docs/diagrams.py node_modules/mermaid/dist/mermaid.min.js"
            )
        svg = re.sub(r"\n\s*\n", "\n", path.read_text(encoding="utf-8")).strip()
        return f'<div class="diagram" role="img" tabindex="0" aria-label="Diagram">{svg}</div>\n'

    return _BLOCK.sub(put, markdown)


def draw(mermaid: Path) -> None:
    """Draw what pages have and is not drawn yet, and remove drawings that no page has."""
    from playwright.sync_api import sync_playwright

    found = [
        text for page in DOCS.rglob("*.md") for text in _BLOCK.findall(page.read_text("utf-8"))
    ]
    DRAWINGS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.add_script_tag(path=mermaid)
        for text in found:
            path = drawing(text)
            call = """([id, text]) => {
                mermaid.initialize({startOnLoad: false, theme: "neutral", htmlLabels: false,
                    flowchart: {htmlLabels: false}, fontFamily: "sans-serif"});
                return mermaid.render(id, text).then(made => made.svg);
            }"""
            if not path.is_file():
                path.write_text(page.evaluate(call, [f"d{path.stem}", text]) + "\n", "utf-8")
        browser.close()
    for path in DRAWINGS.glob("*.svg"):
        if path not in {drawing(text) for text in found}:
            path.unlink()


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
