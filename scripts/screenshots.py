"""Pictures of each view of the page, from a real run with kills: docs/images/ui-*.png.

Usage: screenshots.py [RUNS_DIR]; without RUNS_DIR the run is played first (tests/ui/story.py), over
a private RabbitMQ, in a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from playwright.sync_api import Browser, Page  # noqa: E402

from flmq.broker.node import PrivateNode  # noqa: E402
from flmq.common.urls import parse_broker_url  # noqa: E402
from tests.browser import chromium  # noqa: E402
from tests.ui.servers import PageServer  # noqa: E402
from tests.ui.story import JOB, UNDISTURBED, Story  # noqa: E402
from tests.ui.story_app import MISSING, SLOW  # noqa: E402

IMAGES = _ROOT / "docs" / "images"
VIEWS = {
    "runs": "/",
    "run": f"/runs/{JOB}",
    "round-slow": f"/runs/{JOB}/rounds/{SLOW[1]}",
    "round-missing": f"/runs/{JOB}/rounds/{MISSING[1]}",
    "clients": f"/runs/{JOB}/clients",
    "client": f"/runs/{JOB}/clients/{MISSING[0]}",
    "compare": f"/compare?jobs={JOB},{UNDISTURBED}",
    "broker": "/broker",
}
"""Path by the name of the picture."""
SHAPES = {"": (1280, "light"), "-dark": (1280, "dark"), "-390": (390, "light")}
"""Width and colours by what is added to the name."""
_HEIGHT = 800
_TALLEST = 1500


def main() -> None:
    """Take them all."""
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]), IMAGES)
        return
    with tempfile.TemporaryDirectory(prefix="flmq-story-") as folder:
        story = Story(Path(folder), on_step=print)

        def looked_at(node: PrivateNode) -> None:
            take(story.runs_dir, IMAGES, **_urls(node))

        story.play(before_end=looked_at)


def take(runs_dir: Path, images: Path, **urls: str) -> list[Path]:
    """Take the pictures of the runs in a folder, and of a broker; return their files.

    ``urls``: of the broker, by the names of environment variables; none: it is left out.
    """
    images.mkdir(parents=True, exist_ok=True)
    taken = []
    with PageServer(runs_dir, environ=urls) as page, chromium() as browser:
        for added, (width, scheme) in SHAPES.items():
            for name, path in VIEWS.items():
                if name == "broker" and not urls:
                    continue
                file = images / f"ui-{name}{added}.png"
                _take(browser, page.at(path), file, width, scheme)
                taken.append(file)
    return taken


def _urls(node: PrivateNode) -> dict[str, str]:
    at = parse_broker_url(node.url)
    management = f"http://{at.user}:{at.password}@127.0.0.1:{node.ports.management}"
    return {"FLMQ_BROKER_URL": node.url, "FLMQ_MANAGEMENT_URL": management}


def _take(browser: Browser, url: str, file: Path, width: int, scheme: str) -> None:
    height = _HEIGHT if width > 500 else 844
    page = browser.new_page(viewport={"width": width, "height": height})
    try:
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.goto(url)
        page.wait_for_selector("main svg, main canvas, main tbody tr")
        page.wait_for_timeout(600)  # charts follow their data by frames
        page.set_viewport_size({"width": width, "height": min(_TALLEST, _full(page))})
        page.wait_for_timeout(200)
        page.screenshot(path=file)
    finally:
        page.close()


def _full(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollHeight"))


if __name__ == "__main__":
    main()
