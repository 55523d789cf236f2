"""Hooks of MkDocs (mkdocs.yml): pages made at build time, links out of docs/, drawings, names."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).resolve().parent))

import diagrams
import references
import sources

NAMES = references.public_names()
# What a name of code is not looked for in: it is a link already, or code that is shown.
_LEFT_ALONE = re.compile(
    r"(<pre\b.*?</pre>|<a\b.*?</a>|<h[1-6]\b.*?</h[1-6]>|<autoref\b.*?</autoref>|<svg\b.*?</svg>)",
    re.DOTALL,
)
_NAME = re.compile(r"<code>([A-Za-z_][\w.]*)(\(\))?</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made: the reference, and files that pages link to."""
    texts = {
        f"docs/{file.src_uri}": file.content_string
        for file in files.documentation_pages()
        if not file.src_uri.startswith(sources.FOLDER)
    }
    for path, text in {**references.pages(), **sources.pages(texts)}.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put drawings in place of their text, and lead links to the repository to pages."""
    uri = page.file.src_uri
    if uri.startswith((f"{sources.FOLDER}/", "reference/")):
        return markdown
    return diagrams.drawn(sources.rewritten(markdown, f"docs/{uri}"))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead each public name that a page has as code to its place in the reference."""
    if page.file.src_uri.startswith(f"{sources.FOLDER}/"):
        return content
    parts = _LEFT_ALONE.split(content)
    return "".join(part if n % 2 else _NAME.sub(_led, part) for n, part in enumerate(parts))


def _led(match: re.Match[str]) -> str:
    meant = NAMES.get(match.group(1))
    if meant is None:
        return match.group(0)
    return f'<autoref optional identifier="{html.escape(meant)}">{match.group(0)}</autoref>'
