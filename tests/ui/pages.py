"""A page of one view alone, in a browser: the modules as they are, data as a test says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route

STATIC = Path(__file__).resolve().parents[2] / "flmq" / "ui" / "static"
ORIGIN = "http://flmq.test"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
_HTML = """<!doctype html><html lang="en"><title>view</title><main id="root"></main>
<script type="module" src="/boot.js"></script>"""
_BOOT = """
const { params, view } = await (await fetch("/params")).json();
const module = await import(`/static/views/${view}.js`);
const source = {
  async getJSON(path) {
    const response = await fetch(path);
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    return found;
  },
};
window.went = [];
addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link) { event.preventDefault(); window.went.push(link.pathname); }
});
window.view = module.mount(document.getElementById("root"), params, source);
document.title = module.title(params);
"""
_PATIENCE = 30.0
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'"


def until(page: Page, condition: str) -> None:
    """Wait for an expression to be true. Playwright's own waiting needs eval, which no page may"""
    deadline = time.monotonic() + _PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never: {condition}"
        page.wait_for_timeout(30)


class OneView:
    """Serves one view's page to a browser, out of this process."""

    def __init__(self, page: Page, view: str, **params: str) -> None:
        """`answers`: what the API says, by path; a path that is missing is a 404."""
        self.page = page
        self.answers: dict[str, Any] = {}
        self.errors: list[str] = []
        self.asked: list[str] = []
        self._start = {"view": view, "params": params}
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.route("**/*", self._serve)

    def open(self) -> Page:
        """Open the page, with the answers that are there."""
        self.page.goto(f"{ORIGIN}/")
        until(self.page, "window.view !== undefined")
        return self.page

    def _serve(self, route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN)
        self.asked.append(path)
        headers = {"Content-Security-Policy": POLICY}
        if path == "/":
            route.fulfill(body=_HTML, content_type="text/html", headers=headers)
        elif path == "/boot.js":
            route.fulfill(body=_BOOT, content_type="text/javascript")
        elif path == "/params":
            route.fulfill(body=json.dumps(self._start), content_type="application/json")
        elif path.startswith("/static/"):
            file = STATIC / path.removeprefix("/static/")
            route.fulfill(body=file.read_bytes(), content_type=_TYPES[file.suffix])
        elif path in self.answers:
            route.fulfill(body=json.dumps(self.answers[path]), content_type="application/json")
        else:
            answer = json.dumps({"error": f"there is no {path}: start it"})
            route.fulfill(status=404, body=answer, content_type="application/json")
