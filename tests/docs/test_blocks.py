"""Every block of commands and every program of a page is run by a test, or is named here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

DOCS = ROOT / "docs"
# Which tests run the blocks of sh and python of a page.
RUN_BY = {
    "asks.md": "docs/test_asks.py",
    "cli.md": "docs/test_cli.py",
    "clients.md": "docs/test_clients.py",
    "datacenters.md": "docs/test_datacenters.py",
    "deploy.md": "docs/test_deploy.py",
    "e2e.md": "docs/test_e2e.py",
    "howto/add-a-client.md": "docs/test_howto.py",
    "howto/deadline.md": "docs/test_howto.py",
    "howto/firewall.md": "docs/test_howto.py",
    "howto/resume.md": "docs/test_howto.py",
    "howto/watch.md": "docs/test_howto.py",
    "messages.md": "docs/test_messages.py",
    "models.md": "docs/test_models.py",
    "monitoring.md": "docs/test_monitoring.py",
    "observing.md": "docs/test_observing.py",
    "provision.md": "docs/test_provision.py",
    "rounds.md": "docs/test_rounds.py",
    "security.md": "docs/test_closed_federation.py",
    "simulation.md": "docs/test_simulation.py",
    "strategies.md": "server/strategy/heterogeneous/test_documented.py",
    "torch.md": "torch/test_documented.py",
    "tutorial.md": "docs/test_tutorial.py",
}
# Pages whose blocks no test runs, and why. That their commands exist is tested all the same.
NOT_RUN = {
    "broker.md": "nodes that stay up, of the user's own: tests/broker runs them by other names",
    "flower.md": "one sed over a user's program: tests/examples moves a program by it",
    "performance.md": "benchmarks of many minutes: tests/benchmarks plays their parts",
    "reliability.md": "two lines of a program: tests of late replies set the attribute",
    "ui.md": "a server that ends only by Ctrl-C: tests/ui starts it on ports of its own",
}


def pages() -> set[str]:
    found = set()
    for path in DOCS.rglob("*.md"):
        indented = re.search(r"^ *```(sh|python)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if indented:
            found.add(str(path.relative_to(DOCS)))
    return found


def test_every_page_with_blocks_is_run_or_named() -> None:
    assert pages() == RUN_BY.keys() | NOT_RUN.keys()
    assert not RUN_BY.keys() & NOT_RUN.keys()


@pytest.mark.parametrize("page", sorted(RUN_BY))
def test_the_test_reads_the_page(page: str) -> None:
    text = (ROOT / "tests" / RUN_BY[page]).read_text(encoding="utf-8")
    name = Path(page).name if f'"{Path(page).name}"' in text else Path(page).stem
    assert f'"{name}"' in text


def test_the_few_that_are_not_run_stay_few() -> None:
    counted = {
        page: sum(len(blocks(DOCS / page, of)) for of in ("sh", "python")) for page in NOT_RUN
    }
    assert counted == {
        "broker.md": 2,
        "flower.md": 1,
        "performance.md": 2,
        "reliability.md": 1,
        "ui.md": 1,
    }
