"""The whole page, from its own server, in a browser: numbers, names, keys, widths, breaks."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route

from flmq.client import NumPyClient
from flmq.client.client_ids import clients_of
from flmq.observe.recorder import RunRecorder
from flmq.server.components import ServerAppComponents
from flmq.server.options import RunOptions
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.simulation.app import simulate
from tests.ui.pages import STATIC, until
from tests.ui.servers import PageServer
from tests.ui.synthetic import HOSTILE, Synthetic, write_run

ROUNDS = 4
HELD = 3
"""The round in which a held run waits."""
NAMES = ("a" * 64, "clinic.north_1", "z-9")
LEAST_OF_TEXT = 4.5
LEAST_OF_MARKS = 3.0
WIDTHS = (1280, 390)


class Look:
    """A page that is looked at; what it must never do is counted."""

    def __init__(self, browser: Browser, width: int = 1280) -> None:
        self._context = browser.new_context(viewport={"width": width, "height": 800})
        self.page = self._context.new_page()
        self.foreign: list[str] = []
        self.faults: list[str] = []
        self.server_may_be_gone = False
        self._context.route(lambda url: not self._is_own(url), self._refuse)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self._heard(said.type, said.text))
        self.page.on("dialog", lambda dialog: self.faults.append(f"a dialog: {dialog.message}"))

    def close(self) -> None:
        """Close it, and see that it did nothing that it must not."""
        self._context.close()
        assert self.foreign == []
        assert self.faults == []

    def _is_own(self, url: str) -> bool:
        return urlsplit(url).hostname == "127.0.0.1"

    def _refuse(self, route: Route) -> None:
        self.foreign.append(route.request.url)
        route.abort()

    def _heard(self, kind: str, text: str) -> None:
        # A browser logs each answer of 404 and each server that is not there.
        told = text.startswith("Failed to load resource") and self.server_may_be_gone
        if kind == "error" and not told:
            self.faults.append(text)


@pytest.fixture
def look(chromium: Browser) -> Iterator[Callable[..., Look]]:
    """Opens pages, and sees at the end that none asked another host or failed."""
    made: list[Look] = []

    def opened(width: int = 1280) -> Look:
        made.append(Look(chromium, width))
        return made[-1]

    yield opened
    for each in made:
        each.close()


class _Client(NumPyClient):
    """Its weights and metrics are of its own; in a held round it waits."""

    def __init__(self, share: int, gate: threading.Event | None) -> None:
        self._share = share
        self._gate = gate

    def get_parameters(self, config: Any) -> Any:
        return [np.zeros(4)]

    def fit(self, parameters: Any, config: Any) -> Any:
        if self._gate is not None and parameters[0][0] >= (HELD - 1) * 0.3:
            assert self._gate.wait(120)
        return [parameters[0] + 1 / 3], self._share, {"train_loss": self._share / 7}

    def evaluate(self, parameters: Any, config: Any) -> Any:
        return 1 / (1 + float(parameters[0][0])), self._share, {"accuracy": self._share / 9}


def _mean(metrics: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    return {name: sum(one[name] for _, one in metrics) / len(metrics) for name in metrics[0][1]}


def _train(runs_dir: Path, job: str, gate: threading.Event | None = None) -> None:
    """Train for real, over the broker in memory, with journal and record."""

    def client(context: Any) -> Any:
        return _Client(1 + NAMES.index(context.client_id), gate).to_client()

    strategy = FedAvg(
        min_available_clients=len(NAMES),
        initial_parameters=None,
        fit_metrics_aggregation_fn=_mean,
        evaluate_metrics_aggregation_fn=_mean,
        evaluate_fn=lambda number, weights, config: (2 / (number + 3), {"central": number / 11}),
    )
    parts = ServerAppComponents(None, ServerConfig(num_rounds=ROUNDS), strategy)
    recorder = RunRecorder(runs_dir)
    options = RunOptions(job=job, seed=7, runs_dir=runs_dir, observers=[recorder])
    simulate(client, clients_of(NAMES, {}), parts, options, keep_clients=False)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained, and some that were written."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    _train(folder, "trained")
    write_run(folder, Synthetic(job="hostile", names=HOSTILE, rounds=2, clients=10))
    write_run(folder, Synthetic(job="unfinished.1", rounds=3, open_round=True))
    return folder


@pytest.fixture(scope="module")
def server(runs_dir: Path) -> Iterator[PageServer]:
    with PageServer(runs_dir) as server:
        yield server


def _table(page: Page) -> dict[int, dict[str, str]]:
    """The rounds that the page shows: of each its cells by the names of their columns."""
    rows: list[list[str]] = page.evaluate(
        """() => [...document.querySelectorAll("details table tr")].map((row) =>
            [...row.children].map((cell) => cell.title || cell.textContent))"""
    )
    heads, *rest = rows
    return {int(row[0].split()[0]): dict(zip(heads, row, strict=True)) for row in rest}


def _bytes(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.2f} kB"


def _equal_to_the_record(page: Page, record: dict[str, Any]) -> None:
    shown = _table(page)
    told = [each for each in record["rounds"] if each["server_round"] > 0]
    assert sorted(shown) == [each["server_round"] for each in told]
    for each in told:
        row = shown[each["server_round"]]
        assert row["answered"] == f"{each['fit']['accepted']} of {each['fit']['asked']}"
        for name in ("failed", "rejected", "silent", "late"):
            assert row[name] == str(each["fit"].get(name, 0))
        assert float(row["loss"]) == float(f"{each['loss']:.4g}")
        assert float(row["central"]) == float(f"{each['metrics']['central']:.4g}")
        assert row["down"] == _bytes(each["bytes_down"])
        assert row["up"] == _bytes(each["bytes_up"])
        assert row["model"] == each["digest"]


def _record(runs_dir: Path, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((runs_dir / job / "history.json").read_text())
    return found


ALL_ROUNDS = f"document.querySelectorAll('details tr[data-round]').length === {ROUNDS}"


def test_numbers_are_those_of_the_record(
    server: PageServer, runs_dir: Path, look: Callable[..., Look]
) -> None:
    page = look().page
    page.goto(f"{server.url}runs/trained")
    until(page, ALL_ROUNDS)
    record = _record(runs_dir, "trained")
    _equal_to_the_record(page, record)
    last = record["rounds"][-1]
    shown = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".chart")].map((each) =>
            [each.querySelector("h3").textContent,
             [...each.querySelectorAll(".key, .alone")].map((key) => key.textContent.trim())]))"""
    )
    assert float(shown["Loss"][0]) == float(f"{last['loss']:.4g}")
    assert float(shown["Loss at the clients"][0]) == float(f"{last['evaluate_loss']:.4g}")
    trained = last["fit_metrics"]["train_loss"]
    assert float(shown["train_loss in training"][0]) == float(f"{trained:.4g}")
    assert shown["Clients asked to train"][0] == f"answered {last['fit']['accepted']}"
    assert page.evaluate("document.querySelector('.facts .digest').title") == last["digest"]


def test_a_live_page_outlives_its_server_and_misses_nothing(
    tmp_path: Path, look: Callable[..., Look]
) -> None:
    runs = tmp_path / "runs"
    gate = threading.Event()
    training = threading.Thread(target=_train, args=(runs, "live", gate))
    training.start()
    seen = look()
    seen.server_may_be_gone = True
    page = seen.page
    try:
        with PageServer(runs) as first:
            page.goto(f"{first.url}runs/live")
            until(page, "/Training of round 3/.test(document.querySelector('.now')?.textContent)")
            first.end(signal.SIGKILL)
        until(page, "document.getElementById('live').dataset.state === 'lost'")
        assert "lost" in page.evaluate("document.getElementById('speak').textContent")
        assert len(_table(page)) == HELD  # what was shown stays
        gate.set()
        training.join(120)
        with PageServer(runs, port=first.port):
            until(page, f"document.getElementById('live').dataset.state === 'live' && {ALL_ROUNDS}")
            until(page, "document.querySelector('.run-state').textContent === 'finished'")
            _equal_to_the_record(page, _record(runs, "live"))
    finally:
        gate.set()
        training.join(120)


@pytest.mark.parametrize("path", ["runs/hostile", "runs/hostile/clients", "runs/hostile/rounds/1"])
def test_names_of_clients_are_text(
    server: PageServer, look: Callable[..., Look], path: str
) -> None:
    page = look().page
    page.goto(server.url + path)
    until(page, "document.querySelector('#view h1') !== null && !document.querySelector('.slowly')")
    if path.endswith("rounds/1"):  # a canvas has no text: its table has
        until(page, "document.querySelector('.gantt-phase details') !== null")
        page.evaluate("document.querySelector('.gantt-phase details').open = true")
    if path != "runs/hostile":
        until(page, f"document.body.textContent.includes({json.dumps(HOSTILE[0])})")
    assert (
        page.evaluate("document.querySelector('#view img, #view script, #view [onload]')") is None
    )
    assert "owned" not in page.title()


def test_a_client_of_a_hostile_name_has_a_page(
    server: PageServer, look: Callable[..., Look]
) -> None:
    page = look().page
    for name in HOSTILE[:4]:
        page.goto(f"{server.url}runs/hostile/clients/{quote(name, safe='')}")
        until(page, f"document.querySelector('h1')?.textContent.includes({json.dumps(name)})")


def test_everything_can_be_reached_by_keys(server: PageServer, look: Callable[..., Look]) -> None:
    page = look().page
    page.goto(server.url)
    until(page, "document.querySelectorAll('.runs tbody tr').length === 3")
    keys = page.keyboard
    keys.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    keys.press("Enter")  # it skips, and the view stays
    assert page.evaluate("document.querySelectorAll('.runs tbody tr').length") == 3
    keys.press("?")
    assert page.evaluate("document.getElementById('help').open")
    keys.press("Escape")
    assert not page.evaluate("document.getElementById('help').open")
    keys.press("/")
    keys.type("train")
    assert page.evaluate("document.querySelectorAll('.runs tbody tr').length") == 1
    keys.press("Escape")
    keys.press("j")
    assert page.evaluate("document.activeElement.textContent") == "trained"
    keys.press("Enter")
    until(page, f"location.pathname === '/runs/trained' && {ALL_ROUNDS}")
    until(page, "document.querySelector('.chart path') !== null")
    for _ in range(30):
        keys.press("Tab")
        if page.evaluate("document.activeElement.matches('.chart svg')"):
            break
    keys.press("ArrowLeft")
    assert page.evaluate("document.querySelector('.chart .where').textContent") == "round 3"
    assert "round 3" in page.evaluate("document.getElementById('speak').textContent")
    keys.press("Enter")
    until(page, "location.pathname === '/runs/trained/rounds/3'")
    keys.press("g")
    until(page, "location.pathname === '/'")


NAMELESS = """() => [...document.querySelectorAll("a, button, input, select, svg[tabindex]")]
  .filter((each) => !(each.textContent.trim() || each.getAttribute("aria-label") || each.title
                      || each.labels?.length))
  .map((each) => each.outerHTML.slice(0, 120))"""
TWICE = """() => { const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  return ids.filter((id, at) => ids.indexOf(id) !== at); }"""
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("width", WIDTHS)
def test_each_view_has_landmarks_names_and_no_sideways_scroll(
    server: PageServer, look: Callable[..., Look], width: int
) -> None:
    page = look(width).page
    client = quote(NAMES[0])
    for path in (
        "",
        "runs/trained",
        "runs/unfinished.1",
        "runs/hostile",
        "runs/trained/rounds/2",
        "runs/trained/clients",
        f"runs/trained/clients/{client}",
        "broker",
    ):
        page.goto(server.url + path)
        until(page, "document.querySelector('#view h1') !== null")
        page.wait_for_timeout(400)
        assert page.evaluate(WIDER) <= 0, path
        assert page.evaluate(NAMELESS) == [], path
        assert page.evaluate(TWICE) == [], path
        for landmark in (
            "body > header",
            "nav[aria-label=Views]",
            "main",
            "body > footer",
            "#view h1",
        ):
            assert page.locator(landmark).count() == 1, (path, landmark)
        assert (
            page.evaluate(
                "document.querySelectorAll('[tabindex]:not([tabindex=\"0\"], main)').length"
            )
            == 0
        ), path
        assert page.title() not in ("", "flmq"), path


def test_a_page_with_nothing_on_it_says_what_to_do(
    tmp_path: Path, server: PageServer, look: Callable[..., Look]
) -> None:
    seen = look(390)
    seen.server_may_be_gone = True
    page = seen.page
    (tmp_path / "none").mkdir()
    with PageServer(tmp_path / "none") as empty:
        page.goto(empty.url)
        until(page, "document.querySelector('.empty:not([hidden])') !== null")
        assert "flmq server" in page.evaluate("document.querySelector('.empty').textContent")
    for path, said in (
        ("runs/never", "never"),
        ("nowhere", "no view at /nowhere"),
        ("runs/%E0%A4%A", "damaged"),
    ):
        page.goto(server.url + path)
        until(page, f"document.getElementById('view').textContent.includes({json.dumps(said)})")


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.2, relative luminance)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_stand_out_in_light_and_in_dark() -> None:
    style = (STATIC / "style.css").read_text()
    blocks = re.findall(r"\{([^{}]*--surface:[^{}]*)\}", style)
    assert len(blocks) == 3  # light, dark by the system, dark by choice
    themes = [dict(re.findall(r"--([a-z]+):\s*(#[0-9a-f]{6})", block)) for block in blocks]
    assert themes[1] == themes[2]
    for theme in themes:
        for name, colour in theme.items():
            text = name in ("text", "muted", "accent", "failed", "good")
            if name in ("surface", "raised", "line"):
                continue
            least = LEAST_OF_TEXT if text else LEAST_OF_MARKS
            for ground in ("surface", "raised"):
                assert contrast(colour, theme[ground]) >= least, (name, colour, ground)
