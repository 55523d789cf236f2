"""The scales of the page's charts, where numbers leave little room."""

from __future__ import annotations

from playwright.sync_api import Page

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
