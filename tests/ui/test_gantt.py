"""The Gantt of a round, in a browser: what it draws, says, and does by mouse and keyboard."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page

from flmq.ui.said import sentences_of_round
from tests.ui.pages import OneView, until
from tests.ui.synthetic import HOSTILE
from tests.ui.test_said import T0, a_round, part


def round_view(page: Page, found: dict[str, Any]) -> OneView:
    """The view of round 7 of a job, with this answer of the API."""
    view = OneView(page, "round", job="j.1/x", round="7")
    answer = found | {"said": sentences_of_round(found)}
    view.answers["/api/runs/j.1%2Fx/rounds/7"] = answer
    view.open()
    page.wait_for_selector(".gantt canvas")
    return view


def many(count: int) -> list[dict[str, Any]]:
    return [part(f"client-{n:04}", 1 + (n * 7919 % 1000) / 1000) for n in range(count)]


SLOW = part("slow", 6.5, deliveries=2)
GONE = part("gone", None, away=[[T0 + 2000, T0 + 12_500]], reason="deadline")
STORY = a_round(*many(6), SLOW, GONE, reason="deadline", deadline_ms=T0 + 10_000)


def test_it_says_who_slowed_the_round_and_who_is_missing_first(page: Page) -> None:
    view = round_view(page, STORY)
    said = page.locator(".said p").all_inner_texts()
    assert said[0].startswith(
        "Round 7 has one reply less (7 of 8): gone did not answer: it was away"
    )
    links = page.locator(".said a").evaluate_all("all => all.map(a => a.pathname)")
    assert links[0] == "/runs/j.1%2Fx/clients/gone"
    assert view.errors == []
    assert page.title() == "Round 7 of j.1/x"


def test_bars_stand_where_the_times_are(page: Page) -> None:
    """Colours of pixels in the row of the slowest: its training fills most of it."""
    round_view(page, a_round(*many(6), SLOW, closed=6.6))
    colours = page.evaluate("""async () => {
      await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
      const canvas = document.querySelector(".gantt canvas");
      const style = getComputedStyle(document.querySelector(".gantt"));
      const pixel = (x, y) => [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3)
        .map(v => v.toString(16).padStart(2, "0")).join("");
      const row = n => 26 + n * 22 + 16;
      return {
        training: style.getPropertyValue("--gantt-training").trim().slice(1),
        slow: [600, 900, 1100].map(x => pixel(x, row(0))),
        quick: [600, 900].map(x => pixel(x, row(1))),
      };
    }""")
    assert set(colours["slow"]) == {colours["training"]}
    assert colours["training"] not in colours["quick"]


def test_the_keyboard_steps_through_rows_and_opens_a_client(page: Page) -> None:
    round_view(page, STORY)
    detail = page.locator(".detail").first
    page.locator(".gantt").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    detail.get_by_text("gone").wait_for()
    assert "away" in detail.inner_text()
    page.keyboard.press("ArrowDown")
    detail.get_by_text("slow").wait_for()
    told = detail.inner_text()
    assert "reply after 6.5 s" in told
    assert "training 6.3 s" in told
    assert "taken 2 times" in told
    page.keyboard.press("Enter")
    assert page.evaluate("window.went") == ["/runs/j.1%2Fx/clients/slow"]


def test_a_click_opens_the_client_and_hovering_tells_the_numbers(page: Page) -> None:
    round_view(page, STORY)
    box = page.locator(".gantt").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 400, box["y"] + 26 + 22 + 10)
    page.locator(".detail").first.get_by_text("slow").wait_for()
    page.mouse.click(box["x"] + 400, box["y"] + 26 + 22 + 10)
    assert page.evaluate("window.went") == ["/runs/j.1%2Fx/clients/slow"]


def test_rows_are_ordered_searched_and_told_as_a_table(page: Page) -> None:
    round_view(page, STORY)
    page.get_by_text("As a table").first.click()
    names = page.locator(".gantt-table th[scope=row]")
    assert names.all_inner_texts()[:2] == ["gone", "slow"]
    page.get_by_role("combobox", name="Rows").select_option("client")
    page.get_by_role("searchbox").fill("SLO")
    page.get_by_text("1 of 8", exact=True).wait_for()
    page.locator(".gantt").first.focus()
    page.keyboard.press("ArrowDown")
    page.locator(".detail").first.get_by_text("slow").wait_for()


def test_time_zooms_and_comes_back(page: Page) -> None:
    round_view(page, STORY)
    picture = "document.querySelector('.gantt canvas').toDataURL()"
    page.locator(".gantt").first.focus()
    page.keyboard.press("Home")
    page.wait_for_timeout(100)
    before = page.evaluate(picture)
    page.keyboard.press("+")
    until(page, f"{picture} !== {json.dumps(before)}")
    page.keyboard.press("0")
    until(page, f"{picture} === {json.dumps(before)}")


def test_a_thousand_clients_are_scrolled_through_without_a_thousand_elements(page: Page) -> None:
    view = round_view(page, a_round(*many(1000), closed=2.1))
    assert page.locator("*").count() < 200
    page.locator(".gantt").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("End")
    page.locator(".detail").first.get_by_text("client-0000").wait_for()
    page.get_by_role("combobox", name="Height").select_option("all")
    gantt = "document.querySelector('.gantt')"
    until(page, f"{gantt}.scrollHeight <= {gantt}.clientHeight + 1")
    assert view.errors == []


def test_older_peers_and_open_phases_are_drawn_with_what_is_known(page: Page) -> None:
    none = dict.fromkeys(("taken_ms", "training_started_ms", "training_ended_ms"))
    waiting = part("waiting", None, outcome="open")
    found = a_round(part("old", 1.0, **none), waiting, part("new", 1.2), closed=None)
    view = round_view(page, found)
    page.locator(".gantt").first.focus()
    page.keyboard.press("End")
    page.get_by_role("searchbox").fill("old")
    page.locator(".gantt").first.focus()
    page.keyboard.press("Home")
    page.locator(".detail").first.get_by_text("not told: an older flmq").wait_for()
    assert "awaited: waiting" in page.locator(".said").inner_text()
    assert view.errors == []


def test_hostile_names_and_reasons_stay_text(page: Page) -> None:
    parts = [part(name, 1.0 + n / 9) for n, name in enumerate(HOSTILE)]
    bad = part(HOSTILE[0] + "2", None, outcome="failed", reason=HOSTILE[1])
    view = round_view(page, a_round(*parts, bad))
    page.get_by_text("As a table").first.click()
    page.wait_for_selector(".gantt-table td")
    assert page.locator("#root img, #root script, #root svg").count() == 0
    assert "owned" not in page.title()
    shown = page.locator(".gantt-table th[scope=row]").all_text_contents()
    assert set(HOSTILE) < set(shown)
    assert view.errors == []


def test_what_is_not_there_is_said_with_what_to_do(page: Page) -> None:
    view = OneView(page, "round", job="none", round="7")
    view.open()
    page.get_by_role("alert").get_by_text("start it").wait_for()
