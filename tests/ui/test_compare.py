"""Runs over one another: what the page is told, and what it shows, in a headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import Page

from flmq.client import ClientContext, NumPyClient
from flmq.common import Config, Metrics, NDArrays, Scalar, ndarrays_to_parameters
from flmq.observe.record import load_record
from flmq.observe.recorder import RunRecorder
from flmq.server import ServerConfig
from flmq.server.components import ServerAppComponents
from flmq.server.options import RunOptions
from flmq.server.strategy import FedAvg
from flmq.simulation.app import simulate
from tests.ui.servers import PageServer

EVIL = "<img src=x onerror=alert(1)>"
JOBS = ("calm", "other")
SCREENSHOTS = os.environ.get("FLMQ_SCREENSHOTS")
"""A folder to put pictures into, to be looked at."""
ROUNDS = 8
DIFFERS = 4


class Step(NumPyClient):
    """Goes towards 2; the odd one goes another way from a round on."""

    def __init__(self, odd: bool) -> None:
        self._odd = odd

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        far = self._odd and int(str(config["round"])) >= DIFFERS
        return [(parameters[0] + (3 if far else 2)) / 2], 1, {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(abs(2 - parameters[0][0])), 1, {}


def _measured(server_round: int, parameters: NDArrays, config: Config) -> Any:
    far = float(abs(2 - parameters[0][0]))
    return far, {"accuracy": 1 / (1 + far), EVIL: float("nan") if server_round == 2 else far / 3}


def _play(runs_dir: Path, job: str, *, odd: bool, clients: int, rounds: int = ROUNDS) -> None:
    def source(context: ClientContext) -> Step:
        return Step(odd and context.client_id == "0")

    strategy = FedAvg(
        initial_parameters=ndarrays_to_parameters([np.zeros(1)]),
        on_fit_config_fn=lambda number: {"round": number},
        evaluate_fn=_measured,
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
    )
    parts = ServerAppComponents(strategy=strategy, config=ServerConfig(rounds))
    names: dict[str, dict[str, Scalar]] = {str(number): {} for number in range(clients)}
    recorder = RunRecorder(runs_dir, rest=0.0)
    options = RunOptions(job=job, runs_dir=runs_dir, observers=(recorder,), seed=3)
    simulate(source, names, parts, options, keep_clients=True)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    _play(folder, "calm", odd=False, clients=3)
    _play(folder, "other", odd=True, clients=4)
    _play(folder, "short", odd=False, clients=3, rounds=5)
    shutil.copytree(folder / "short", folder / EVIL)
    return folder


@pytest.fixture(scope="module")
def server(runs_dir: Path) -> Iterator[PageServer]:
    with PageServer(runs_dir) as made:
        yield made


def asked(server: PageServer, *jobs: str) -> tuple[int, Any]:
    """What the page's server answers."""
    status, _, said = server.ask(f"/api/compare?jobs={','.join(map(quote, jobs))}")
    return status, said


def shown(
    page: Page, server: PageServer, *jobs: str, width: int = 1280, dark: bool = False
) -> list[str]:
    """Show the view of these runs; return what goes wrong in the page from then on."""
    wrong: list[str] = []
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.goto(f"{server.url}compare?jobs={','.join(map(quote, jobs))}")
    page.wait_for_selector(".compare .verdict, .compare .problem:not([hidden]), .compare p.hint")
    return wrong


def test_numbers_and_digests_are_those_of_the_records(server: PageServer, runs_dir: Path) -> None:
    status, said = asked(server, *JOBS)
    assert status == 200
    assert [run["job"] for run in said["runs"]] == list(JOBS)
    assert said["names"] == ["loss", "accuracy", EVIL.replace(" ", "_")]
    records = [load_record(runs_dir / job) for job in JOBS]
    for each in said["rounds"]:
        for side, record in zip(each["sides"], records, strict=True):
            closed = record.rounds[each["round"] - 1]
            assert side["measures"]["loss"] == closed.loss
            assert side["seconds"] == closed.seconds
            assert side["digest"] == closed.digest
            assert (side["counted"], side["asked"]) == (closed.fit.accepted, closed.fit.asked)
    assert said["rounds"][1]["sides"][0]["measures"][EVIL.replace(" ", "_")] == {"$float": "nan"}


def test_the_first_difference_is_named(server: PageServer) -> None:
    _, said = asked(server, *JOBS)
    # The means of a few numbers that are all the same have the same bits.
    assert said["first_model"]["round"] == said["first_measures"] == DIFFERS
    assert said["first_clients"] == 1
    assert [side["only"] for side in said["rounds"][0]["sides"]] == [[], ["3"]]
    _, said = asked(server, "calm", "short")
    assert (said["first_model"], said["first_measures"], said["first_clients"]) == (None,) * 3
    assert [each["same"] for each in said["rounds"]] == [True] * 5 + [None] * 3


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ((), "0 runs: choose 2 to 6"),
        (("calm",), "1 runs: choose 2 to 6"),
        (("calm", "calm"), "1 runs: choose 2 to 6"),
        (tuple(map(str, range(9))), "9 runs: choose 2 to 6"),
        (("calm", "../calm"), "there is no run '../calm'"),
        (("calm", "none"), "there is no run 'none'"),
    ],
)
def test_what_cannot_be_compared_is_said_with_what_to_do(
    server: PageServer, jobs: tuple[str, ...], words: str
) -> None:
    status, said = asked(server, *jobs)
    assert status == 400
    assert words in said["error"]


def test_a_damaged_run_is_named(server: PageServer, runs_dir: Path) -> None:
    (runs_dir / "damaged").mkdir(exist_ok=True)
    (runs_dir / "damaged" / "journal.db").write_bytes(b"no database")
    status, said = asked(server, "calm", "damaged")
    shutil.rmtree(runs_dir / "damaged")
    assert status == 400
    assert "damaged" in said["error"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_runs_lie_over_one_another(page: Page, server: PageServer, width: int, dark: bool) -> None:
    wrong = shown(page, server, "calm", "other", EVIL, width=width, dark=dark)
    assert page.locator(".compare .lines svg").count() == 5
    assert page.locator(".compare figure").first.locator("polyline.line").count() == 3
    assert page.locator(".compare tbody tr").count() == ROUNDS
    verdict = page.locator(".compare .verdict").inner_text()
    assert "The models differ" in verdict or "differ" in verdict
    assert EVIL in page.locator(".compare .keys").inner_text()
    assert page.locator(".compare img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if SCREENSHOTS:
        name = f"compare-{width}-{'dark' if dark else 'light'}.png"
        page.screenshot(path=Path(SCREENSHOTS) / name, full_page=True)
    assert wrong == []


def test_the_keyboard_reads_a_round_of_all_runs(page: Page, server: PageServer) -> None:
    wrong = shown(page, server, *JOBS)
    said = asked(server, *JOBS)[1]
    page.locator(".compare .lines svg").first.focus()
    for _ in range(DIFFERS):
        page.keyboard.press("ArrowRight")
    readout = page.locator(".compare .readout").inner_text()
    assert readout.startswith(f"Round {DIFFERS} ")
    assert readout.endswith("models differ")
    for side in said["rounds"][DIFFERS - 1]["sides"]:
        assert f"loss {side['measures']['loss']:.4g}" in readout
    page.keyboard.press("End")
    assert page.locator(".compare .readout").inner_text().startswith(f"Round {ROUNDS} ")
    page.keyboard.press("Home")
    assert page.locator(".compare .readout").inner_text().startswith("Round 1 ")
    assert wrong == []


def test_runs_are_chosen_from_a_list(page: Page, server: PageServer) -> None:
    wrong = shown(page, server)
    assert "Choose two to six runs" in page.locator(".compare").inner_text()
    boxes = page.locator(".compare .choose input")
    assert boxes.count() == 4
    button = page.locator(".compare .choose button")
    assert button.is_disabled()
    page.get_by_label("calm").check()
    page.get_by_label(EVIL).check()
    assert button.inner_text() == "Compare 2 runs"
    button.click()
    page.wait_for_url("**/compare?jobs=*")
    assert set(page.url.split("=", 1)[1].split(",")) == {"calm", quote(EVIL, safe="()")}
    assert wrong == []


def test_runs_are_chosen_on_the_page_of_all_runs(page: Page, server: PageServer) -> None:
    wrong = shown(page, server)
    page.goto(server.url)
    for job in JOBS:
        page.get_by_label(f"compare {job}").check()
    page.get_by_role("link", name="Compare 2").click()
    page.wait_for_selector(".compare .verdict")
    assert page.title() == "Compare runs · flmq"
    assert page.locator(".compare .keys li").count() == 2
    assert wrong == []


def test_what_went_wrong_is_shown(page: Page, server: PageServer) -> None:
    wrong = shown(page, server, "calm", "none")
    assert "there is no run 'none'" in page.locator(".compare .problem").inner_text()
    assert wrong == []
