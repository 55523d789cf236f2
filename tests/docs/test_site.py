"""The documentation as a site: built without a warning, complete, and without another host."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from playwright.sync_api import Browser, Page

from flmq.cli.main import app
from tests import browser
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
# Made when the site is built; the rest of the menu is in docs/.
MADE = "reference/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *said: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.chromium() as launched:
        yield launched


@pytest.fixture
def elsewhere(chromium: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    """A page of the browser, and what it asked other hosts for: it was refused."""
    asked: list[str] = []
    page = chromium.new_page(viewport={"width": 390, "height": 844})

    def see(route: object) -> None:
        url = route.request.url  # type: ignore[attr-defined]
        if url.startswith((address, "data:", "blob:")):
            route.continue_()  # type: ignore[attr-defined]
        else:
            asked.append(url)
            route.abort()  # type: ignore[attr-defined]

    page.route("**/*", see)
    yield page, asked
    page.close()


def menu() -> list[str]:
    """The pages that the menu of mkdocs.yml names."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    return re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE)


def made() -> Any:
    """The module that makes the reference; it is no part of the package."""
    path = ROOT / "scripts" / "docs" / "references.py"
    spec = importlib.util.spec_from_file_location("references", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_page_is_in_the_menu_once_and_each_entry_is_there() -> None:
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    named = menu()
    assert len(named) == len(set(named))
    assert {name for name in named if not name.startswith(MADE)} == pages
    assert {name for name in named if name.startswith(MADE)} == made().pages().keys()


def test_the_reference_of_the_command_line_has_every_option() -> None:
    text = made().command_line()
    groups = [("flmq", typer.main.get_command(app))]
    while groups:
        path, command = groups.pop()
        assert path == "flmq" or f"\n## {path}\n" in text
        groups += [(f"{path} {n}", c) for n, c in getattr(command, "commands", {}).items()]
        for option in command.params:
            if option.param_type_name == "option" and not getattr(option, "hidden", False):
                assert option.opts[0] in text, f"{path} {option.opts}"
            if option.envvar:
                assert str(option.envvar) in text


def test_every_public_name_of_the_rooms_is_in_the_reference() -> None:
    module = made()
    together = "\n".join(module.pages().values())
    for name in ("flmq.server.start_server", "flmq.client.NumPyClient", "flmq.common.FitRes"):
        assert f"\n::: {name}\n" in together
    assert module.public_names()["FedBuff"] == "flmq.server.strategy.FedBuff"


def test_every_diagram_is_drawn() -> None:
    found = re.findall(
        r"^```mermaid\n(.*?)^```$",
        (DOCS / "architecture.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert len(found) > 2
    for text in found:
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        assert (DOCS / "images" / "diagrams" / f"{name}.svg").is_file(), text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_reference_shows_what_is_public(site: Path) -> None:
    text = (site / "reference" / "server.html").read_text(encoding="utf-8")
    assert 'id="flmq.server.start_server"' in text
    assert "server_address" in text
    strategies = (site / "strategies.html").read_text(encoding="utf-8")
    assert 'href="reference/strategy.html#flmq.server.strategy.FedBuff"' in strategies


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_page_opens_without_another_host(
    site: Path, address: str, elsewhere: tuple[Page, list[str]]
) -> None:
    page, asked = elsewhere
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name in menu():
        page.goto(f"{address}/{name.removesuffix('.md')}.html", wait_until="load")
        assert page.locator("h1").first.is_visible(), name
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is wider than a phone, by {wide} pixels"
    assert asked == []
    assert errors == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_search_finds_a_page_without_another_host(
    address: str, elsewhere: tuple[Page, list[str]]
) -> None:
    page, asked = elsewhere
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/index.html")
    page.locator(".md-search__input").fill("round-timeout")
    page.wait_for_selector(".md-search-result__link")
    assert page.locator(".md-search-result__link").count() > 0
    assert asked == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_diagrams_are_drawings(site: Path) -> None:
    text = (site / "architecture.html").read_text(encoding="utf-8")
    diagrams = (DOCS / "architecture.md").read_text(encoding="utf-8").count("```mermaid")
    assert text.count('<div class="diagram"') == diagrams > 2
    assert 'class="mermaid"' not in text
