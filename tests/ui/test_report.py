"""A report is one file: opened from disk, it shows all views and asks for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from typer.testing import CliRunner

from flmq.cli.main import app
from flmq.observe.record import load_record, save_record
from flmq.observe.recorder import RunRecorder
from flmq.ui.report.bundle import module_map
from flmq.ui.report.report import write_report
from tests.observe.synthetic import JOB, whole_run
from tests.ui.pages import STATIC, until
from tests.ui.synthetic import HOSTILE, Synthetic, write_run


class Opened:
    """A report in a browser, whose every request and error is kept."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.asked: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.url = path.resolve().as_uri()
        page.goto(self.url)
        self.wait("document.querySelector('main h1') !== null")

    def wait(self, condition: str) -> None:
        until(self.page, condition)

    def go(self, path: str) -> str:
        """Go to a view; its words."""
        self.page.evaluate("path => { location.hash = path; }", path)
        self.page.wait_for_timeout(500)
        self.wait("document.querySelector('main h1') !== null")
        return self.page.inner_text("main")

    def check(self) -> None:
        others = [url[:80] for url in self.asked if not url.startswith(("data:", self.url))]
        assert others == []
        assert self.errors == []


@pytest.fixture
def page(chromium: Browser) -> Page:
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, offline=True)
    return context.new_page()


def test_all_views_are_there_without_a_request(tmp_path: Path, page: Page) -> None:
    write_run(tmp_path, Synthetic(clients=len(HOSTILE) + 2, names=HOSTILE))
    done = CliRunner().invoke(app, ["runs", "--runs-dir", str(tmp_path), "report", "synthetic"])
    assert done.exit_code == 0, done.output
    path = tmp_path / "synthetic" / "report.html"
    assert path.stat().st_size < 1_000_000
    opened = Opened(page, path)
    opened.wait("document.querySelector('main').innerText.includes('synthetic')")
    assert "Loss" in page.inner_text("main") or "loss" in page.inner_text("main")
    page.screenshot(path=tmp_path / "run.png")
    assert "Round 7" in opened.go("/runs/synthetic/rounds/7")
    page.screenshot(path=tmp_path / "round.png")
    assert "client-000" in opened.go("/runs/synthetic/clients")
    assert "client-000" in opened.go("/runs/synthetic/clients/client-000")
    assert "synthetic" in opened.go("/")
    assert "open the run with" in opened.go("/runs/other")
    assert page.title() != "owned"
    opened.check()


def test_names_cannot_end_the_script_that_holds_them(tmp_path: Path, page: Page) -> None:
    recorder = RunRecorder(tmp_path)
    for event in whole_run():
        recorder(event)
    record = load_record(tmp_path / JOB)
    hostile = {"</script><script>document.title='owned'</script>": 0.5, "<!--<script>": 1.0}
    rounds = tuple(replace(each, metrics={**each.metrics, **hostile}) for each in record.rounds[:2])
    save_record(replace(record, rounds=rounds), tmp_path / JOB / "history.json")
    write_report(tmp_path, JOB, tmp_path / "report.html")
    opened = Opened(page, tmp_path / "report.html")
    assert page.title() != "owned"
    opened.check()


def test_a_large_run_is_bounded_and_says_what_is_left_out(tmp_path: Path, page: Page) -> None:
    write_run(tmp_path, Synthetic(rounds=30, clients=30))
    path = tmp_path / "report.html"
    report = write_report(tmp_path, "synthetic", path, most_rounds=30_000, most_clients=20_000)
    assert 0 < report.rounds_left_out < 30
    assert 0 < report.clients_left_out < 30
    opened = Opened(page, path)
    foot = page.inner_text("footer")
    assert f"{report.rounds_left_out} of the earliest rounds have no Gantt" in foot
    assert "This report does not have that" in opened.go("/runs/synthetic/rounds/1")
    assert "Round 30" in opened.go("/runs/synthetic/rounds/30")


def test_no_module_names_another_by_a_path() -> None:
    import base64
    import json
    import re

    imports = json.loads(module_map(STATIC))["imports"]
    for name, url in imports.items():
        text = base64.b64decode(url.partition(",")[2]).decode()
        for wanted in re.findall(r"""(?:from|import\()\s*["']([^"']+)["']""", text):
            assert wanted in imports or wanted.endswith("/compare.js"), f"{name} imports {wanted}"


def test_a_run_that_is_not_there_is_said_not_to_be(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["runs", "--runs-dir", str(tmp_path), "report", "nix"])
    assert "there is no run 'nix'" in str(done.exception)
