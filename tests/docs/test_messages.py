"""The page on messages of one's own is true: its program runs, over the real broker."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import README, ROOT, program
from tests.processes import environment, run_together

PAGE = ROOT / "docs" / "messages.md"


def test_the_program_asks_and_a_client_of_another_program_says_what_to_do(
    broker_url: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(program(PAGE, "app.py"), encoding="utf-8")
    (tmp_path / "other.py").write_text(program(README, "app.py"), encoding="utf-8")
    server, *_ = run_together(
        [
            ["flmq", "server", "app:server", "--job", "range"],
            ["flmq", "client", "app:client", "--client-id", "alice", "--once"],
            ["flmq", "client", "other:client", "--client-id", "bob", "--once"],
        ],
        tmp_path,
        environment(broker_url),
    )
    assert re.search(r"^alice has points from -0\.\d\d to 0\.\d\d$", server, re.MULTILINE), server
    unknown = (
        "client bob: failed: UnknownKind: this client does not know messages of kind range_of: "
        "register it in the client's program"
    )
    assert unknown in server
    assert "`this client does not know messages of kind range_of" in PAGE.read_text("utf-8")
