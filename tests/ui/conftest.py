"""A browser for the page's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests import browser


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with browser.chromium() as launched:
        yield launched


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of 1,280 x 800."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    yield page
    page.close()
