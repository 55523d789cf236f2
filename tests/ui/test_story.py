"""A real run with kills, its page in a real browser: it says who slowed which round, and why."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from flmq.ui.said import as_text
from tests.ui.servers import PageServer
from tests.ui.story import JOB, Story
from tests.ui.story_app import KILLED, MISSING, ROUNDS, SLOW

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The run, played to its end."""
    played = Story(tmp_path_factory.mktemp("story"))
    played.play()
    return played


@pytest.fixture(scope="module")
def page(story: Story) -> Iterator[PageServer]:
    """Its page."""
    with PageServer(story.runs_dir) as serving:
        yield serving


def answer(page: PageServer, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(page.at(f"/api/runs/{JOB}{path}"), timeout=60) as response:
        found: dict[str, Any] = json.load(response)
        return found


def said(page: PageServer, server_round: int) -> list[str]:
    found = answer(page, f"/rounds/{server_round}")
    return [as_text(sentence) for sentence in found["said"]]


def test_the_first_sentence_names_the_client_that_slowed_a_round(page: PageServer) -> None:
    client, server_round = SLOW
    first = said(page, server_round)[0]
    assert first.startswith(f"{client} slowed round {server_round}: ")
    assert "went into training" in first


def test_the_first_sentence_says_who_is_missing_and_that_it_was_away(page: PageServer) -> None:
    client, server_round = MISSING
    first, second, *_ = said(page, server_round)
    assert first.startswith(f"Round {server_round} has one reply less (7 of 8): {client} did not")
    assert "it was away, without a sign of life, from" in first
    assert second.startswith(f"Round {server_round} waited for {client} until its deadline")


def test_a_death_in_a_task_is_told(page: PageServer) -> None:
    client, server_round = KILLED
    first = said(page, server_round)[0]
    assert first.startswith(f"{client} slowed round {server_round}: ")
    assert "its process died once in it" in first


def test_the_kill_of_the_server_and_the_restart_of_the_broker_are_marked(page: PageServer) -> None:
    kinds = {mark["kind"] for mark in answer(page, "/marks")["marks"]}
    assert kinds & {"resume", "takeover"}
    assert "outage" in kinds
    assert answer(page, "/rounds")["rounds"][-1]["round"] == ROUNDS


def test_every_view_is_drawn_without_another_host_and_without_an_error(
    page: PageServer, chromium: Browser
) -> None:
    paths = ("/", f"/runs/{JOB}", f"/runs/{JOB}/rounds/9", f"/runs/{JOB}/clients")
    looked = chromium.new_page()
    hosts: set[str] = set()
    errors: list[str] = []
    looked.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    looked.on("pageerror", lambda error: errors.append(str(error)))
    for path in (*paths, f"/runs/{JOB}/clients/{MISSING[0]}"):
        looked.goto(page.at(path))
        looked.wait_for_selector("main svg, main canvas, main tbody th")
        assert looked.locator("main").inner_text()
    looked.close()
    assert hosts == {urlsplit(page.url).netloc}
    assert errors == []


def test_the_pages_server_reads_and_writes_nothing(page: PageServer, story: Story) -> None:
    def files() -> dict[Path, int]:
        kept = (path for path in story.run_folder.rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in kept if not path.name.endswith("-shm")}

    before = files()
    answer(page, "/rounds/9")
    answer(page, "/clients")
    assert files() == before
