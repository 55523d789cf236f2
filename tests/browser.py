"""A headless Chromium for tests of pages."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

__all__ = ["chromium"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start a Chromium without a window: Debian's, or what FLMQ_CHROMIUM names."""
    names = (os.environ.get("FLMQ_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if name and (path := shutil.which(name))), None)
    if program is None:
        raise RuntimeError("no Chromium here: sh scripts/install-chromium.sh")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()
