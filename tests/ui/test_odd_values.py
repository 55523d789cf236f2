"""What the page draws of numbers and names that leave little room."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

from flmq.ui.reading.runs import Runs
from tests.ui.pages import OneView


def test_a_loss_that_changes_by_rounding_alone_is_a_flat_line(page: Page) -> None:
    """A step of the axis that is too small to change a number made the page hang."""
    OneView(page, "broker").open()
    low, high, values = page.evaluate("""async () => {
      const { ends, ticks } = await import("/static/charts/scale.js");
      const [low, high] = ends([485.10980351942436, 485.1098035194244]);
      return [low, high, high - low > 1 ? ticks(low, high, 3) : []];
    }""")
    assert low < 400 < 500 < high
    assert values == [400, 600]


def test_a_folder_whose_name_is_no_utf8_hides_no_other_run(page: Page, tmp_path: Path) -> None:
    for name in ("sound", "half \udcff"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "history.json").write_text("{}", encoding="utf-8")
    runs = Runs(tmp_path)
    view = OneView(page, "runs")
    view.answers["/api/runs"] = {"runs": runs.heads()}
    view.open()
    page.get_by_role("link", name="half").wait_for()
    assert page.get_by_role("link", name="sound").count() == 1
    runs.close()
