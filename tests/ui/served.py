"""The page as its users have it: `flmq ui` in a process of its own, looked at by a browser."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

__all__ = ["ServedPage", "chromium", "served"]

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class ServedPage:
    """A page's server."""

    url: str
    """Without a slash at its end."""
    pid: int

    @property
    def rss_bytes(self) -> int:
        """Memory that its process has in RAM now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """Processor time that its process has taken."""
        text = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def served(runs_dir: Path, **more: str) -> Iterator[ServedPage]:
    """Serve the runs in a folder, at any free port, with ``more`` in its environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLMQ_")} | more
    command = [sys.executable, "-m", "flmq", "ui", "--runs-dir", str(runs_dir), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    try:
        assert process.stdout is not None
        said = b""
        while not (found := re.search(rb"http://[0-9.:]+", said)):
            line = process.stdout.readline()
            assert line, f"the page's server ended: {said.decode()}"
            said += line
        yield ServedPage(found[0].decode(), process.pid)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        process.kill()
        process.communicate()


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
