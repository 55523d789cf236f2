"""How-to pages: what they have one type works, one page after the other, on one run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from tests.docs.pages import ROOT
from tests.processes import Commands

HOWTO = ROOT / "docs" / "howto"


def typed(page: str) -> list[str]:
    """The page's commands; its blocks may stand below a point of a list."""
    text = (HOWTO / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in found for line in block.splitlines()]


def test_a_run_with_a_deadline_a_client_more_and_a_look_at_it(
    broker_url: str, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    commands = Commands(broker_url, tmp_path)
    resumed, listed, alice = typed("resume")
    (carol,) = typed("add-a-client")
    (server,) = typed("deadline")
    assert server.startswith(resumed)
    try:
        commands.run(*shlex.split(alice)[1:])
        first = commands.run(*shlex.split(carol)[1:])
        done = commands.run(*shlex.split(server)[1:])
        assert done.wait(150) == 0, commands.outputs()
        assert first.wait(60) == 0, commands.outputs()
        assert "answered=2" in commands.output(done)
        again = commands.run(*shlex.split(resumed)[1:])
        assert again.wait(150) == 0, commands.outputs()
        for line in (listed, *typed("watch"), *typed("firewall")):
            ran = commands.run(*shlex.split(line)[1:])
            assert ran.wait(150) == 0, commands.output(ran)
    finally:
        commands.end()
    assert (tmp_path / "runs" / "line" / "parts.csv").is_file()


def test_every_how_to_page_is_followed() -> None:
    followed = {"resume", "add-a-client", "deadline", "watch", "firewall"}
    assert {path.stem for path in HOWTO.glob("*.md")} == followed
