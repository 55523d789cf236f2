"""The views of clients in a browser: order and search, presence, speed, errors; hostile text."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.ui.pages import OneView
from tests.ui.synthetic import HOSTILE
from tests.ui.test_said import T0, part


def line(client: str, **changes: Any) -> dict[str, Any]:
    values = {
        "client": client,
        "status": "online",
        "since_ms": T0,
        "version": "1.0",
        "offset_ms": -3_600_000.0,
        "offset_error_ms": 4.0,
        "answered": 7,
        "failed": 0,
        "silent": 0,
        "late": 0,
        "median_seconds": 1.0,
        "last_error": "",
    }
    return values | changes


def opened(page: Page, view: str, answers: dict[str, Any], **params: str) -> OneView:
    page.unroute_all()
    one = OneView(page, view, job="j", **params)
    one.answers.update(answers)
    one.open()
    return one


def test_clients_are_ordered_by_any_column_and_found_by_name(page: Page) -> None:
    lines = [line(f"c{n}", median_seconds=n / 2, failed=9 - n) for n in range(9)]
    lines.append(line(HOSTILE[0], median_seconds=None, last_error=HOSTILE[1]))
    one = opened(page, "clients", {"/api/runs/j/clients": {"clients": lines}})
    names = page.locator("tbody th")
    names.first.wait_for()
    assert names.all_inner_texts()[:2] == ["c8", "c7"]
    page.get_by_role("button", name="failed").click()
    assert names.all_inner_texts()[:2] == ["c0", "c1"]
    assert page.locator("[aria-sort=descending]").inner_text() == "failed"
    page.get_by_role("searchbox").fill("IMG")
    assert names.all_inner_texts() == [HOSTILE[0]]
    assert page.locator("#root img").count() == 0
    assert one.errors == []


def test_a_client_is_shown_with_its_presence_speed_metrics_and_last_error(page: Page) -> None:
    task = {"round": 3, "phase": "fit", **part("c1", 2.0), "seconds": 2.0, "median_seconds": 1.5}
    own = {**task, "phase": "constructor"}  # the name of a kind of one's own
    client = {
        **line("c1", status="away", silent=1),
        "presence": [
            {"at_ms": T0, "status": "online", "reason": "said hello"},
            {"at_ms": T0 + 9000, "status": "away", "reason": HOSTILE[0]},
        ],
        "tasks": [own, task, {**task, "round": 4, "outcome": "silent", "received_ms": None}],
        "errors": [
            {
                "round": 2,
                "phase": "fit",
                "at_ms": T0,
                "reason": "ValueError: " + HOSTILE[1],
                "detail": "Traceback\n" + HOSTILE[2],
            }
        ],
        "metrics": {HOSTILE[3]: [[1, 0.5], [3, 0.75]], "odd": [[1, "NaN"]]},
    }
    answers = {"/api/runs/j/clients/c1": client, "/api/runs/j/clients": {"clients": [line("c1")]}}
    one = opened(page, "client", answers, client="c1")
    page.get_by_role("heading", name="Tasks").wait_for()
    told = page.locator("#root").inner_text()
    for words in ("away since", "60 min behind", "no reply 1", "ValueError: " + HOSTILE[1]):
        assert words in told
    assert page.locator(".presence-band rect").count() == 2
    assert page.locator(".course polyline.others").count() == 2
    assert "Seconds to the reply in constructor" in told
    page.get_by_text("Traceback").first.click()
    assert HOSTILE[2] in page.locator("pre").inner_text()
    assert page.locator("#root img, #root script").count() == 0
    assert page.evaluate("document.querySelector('tbody tr th a').pathname") == "/runs/j/rounds/4"
    assert one.errors == []


def test_a_client_that_is_not_there_is_said(page: Page) -> None:
    opened(page, "client", {}, client="nobody")
    page.get_by_role("alert").get_by_text("start it").wait_for()
