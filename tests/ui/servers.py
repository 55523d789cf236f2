"""The page's server as a process of its own, as `flmq ui` starts it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

__all__ = ["PageServer"]


class PageServer:
    """`flmq ui` on a free port of loopback."""

    def __init__(
        self,
        runs_dir: Path,
        *options: str,
        port: int = 0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._log = runs_dir.parent / "ui.log"
        command = [sys.executable, "-m", "flmq", "ui", f"--runs-dir={runs_dir}", f"--port={port}"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **(environ or {})},
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().rstrip("\n")
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.line)
        assert found, f"{self.line}\n{self._log.read_text()}"
        self.port = int(found[1])
        self.url = found[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end(signal.SIGKILL)

    def end(self, by: signal.Signals) -> int:
        """End it by a signal; return its exit status."""
        self.process.send_signal(by)
        status = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def at(self, path: str) -> str:
        """Return the URL of a path."""
        return self.url.rstrip("/") + path

    @property
    def rss_bytes(self) -> int:
        """Memory that its process has in RAM now."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii")
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """Processor time that its process has taken."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, Any]:
        """Return status, headers and the decoded JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        is_json = "json" in response.headers.get("content-type", "")
        return response.status, response.headers, json.loads(body) if is_json else body

    def get(self, *parts: str, query: str = "") -> Any:
        """Return what the API answers below /api, and see that it does."""
        path = "/api/" + "/".join(quote(each, safe="") for each in parts)
        status, _, found = self.ask(f"{path}?{query}" if query else path)
        assert status == 200, (path, status, found)
        return found
