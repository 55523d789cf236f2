"""The page: how soon it is painted at 1,000 rounds of 100 clients, and a round of 1,000 clients.

In headless Chromium, by the page's own clock from the start of navigation until two frames after
its data is drawn; medians of five, each in a browser context of its own, with nothing cached.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser

from tests.browser import chromium
from tests.ui.servers import PageServer
from tests.ui.synthetic import Synthetic, write_run

_LARGE = Synthetic("large", rounds=1000, clients=100, evaluate=False)
_WIDE = Synthetic("wide", rounds=1, clients=1000, slow_round=1, missing_round=0)
_LOOKS = (
    # what, path, what is there once its data is drawn, goal in seconds
    ("runs", "/", "main svg, main tbody th", 1.0),
    (
        "run of {rounds:,} rounds x 100 clients",
        "/runs/large",
        "main .chart svg path, main .chart svg rect",
        1.0,
    ),
    ("round of 100 clients", "/runs/large/rounds/7", None, 1.0),
    ("Gantt of 1,000 clients", "/runs/wide/rounds/1", None, 2.0),
)
_WATCH = """
(selector) => {
  const drawn = () => selector === null
    ? performance.getEntriesByName("gantt-painted").length > 0
    : document.querySelector(selector) !== null;
  const next = (act) => requestAnimationFrame(act);
  const painted = () => { window.paintedAt = performance.now(); };
  const look = () => drawn() ? next(() => next(painted)) : next(look);
  look();
}
"""
_PATIENCE = 60_000.0


def main() -> None:
    """Write the runs, look at each view several times, and print medians beside goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="looks at each view (default: 5)")
    parser.add_argument("--rounds", type=int, default=_LARGE.rounds, help="of the large run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flmq-page-") as folder:
        runs_dir = Path(folder)
        for what in (_LARGE, _WIDE):
            rounds = options.rounds if what is _LARGE else what.rounds
            write_run(runs_dir, replace(what, rounds=rounds))
        with PageServer(runs_dir) as page, chromium() as browser:
            print("| view | first paint, median | slowest | goal |\n|---|---|---|---|")
            for view, path, selector, goal in _LOOKS:
                took = [_look(browser, page, path, selector) for _ in range(options.times)]
                median, slowest = statistics.median(took), max(took)
                said = view.format(rounds=options.rounds)
                print(f"| {said} | {median:.2f} s | {slowest:.2f} s | {goal:g} s |")
            print(
                f"\nThe page's server: {page.rss_bytes / 1e6:.0f} MB, {page.cpu_seconds:.1f} s CPU"
            )


def _look(browser: Browser, served_page: PageServer, path: str, selector: str | None) -> float:
    """Open a view; return the seconds until it was painted with its data."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        page = context.new_page()
        waiting = "null" if selector is None else repr(selector)
        page.add_init_script(f"({_WATCH})({waiting})")
        page.goto(served_page.at(path), wait_until="commit")
        begun = 0.0
        while (at := page.evaluate("window.paintedAt ?? null")) is None:
            page.wait_for_timeout(20)
            begun += 20
            if begun > _PATIENCE:
                raise RuntimeError(f"{path} is not painted after {_PATIENCE / 1000:g} s")
        return float(at) / 1000
    finally:
        context.close()


if __name__ == "__main__":
    main()
