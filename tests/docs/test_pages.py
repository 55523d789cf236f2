"""All pages: the commands in them exist with their options, and the links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import typer

from flmq.cli.exit_codes import ExitCode
from flmq.cli.main import app
from tests.docs.pages import PAGES, ROOT, commands

EXIT_CODES = ROOT / "docs" / "exit-codes.md"
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FLMQ = re.compile(r"(?<![\w./-])flmq((?: [\w.:=/@{}*'\"<>,-]+)+)")


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def typed_commands(page: Path) -> list[list[str]]:
    """What stands behind each ``flmq`` that is called as a program, word by word."""
    return [
        shlex.split(match.group(1))
        for line in commands(page)
        for match in _FLMQ.finditer(line)
        if match.start() == 0 or line[: match.start()].endswith((".venv/bin/", "$(", "-m ", "; "))
    ]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_exist_with_their_options(page: Path) -> None:
    for words in typed_commands(page):
        command: click.Command = typer.main.get_command(app)
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            assert name in command.commands, f"{page.name}: there is no 'flmq {' '.join(words)}'"
            command = command.commands[name]
        options = {
            "--help",
            *(flag for p in command.params for flag in (*p.opts, *p.secondary_opts)),
        }
        for word in rest:
            if word.startswith("-"):
                assert word.partition("=")[0] in options, f"{page.name}: flmq {' '.join(words)}"


def test_commands_are_found_in_blocks_and_in_running_text() -> None:
    found = [" ".join(words) for page in PAGES for words in typed_commands(page)]
    assert "client app:client --client-id alice --once" in found
    assert "broker up" in found  # behind $(
    assert "doctor" in found


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(place), f"{page.name} links to {target}: no such heading"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_extras_exist(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"(?:flmq|\.)\[([a-z,]+)\]", page.read_text(encoding="utf-8"))
    for extra in {part for extras in named for part in extras.split(",")}:
        assert extra in project["optional-dependencies"], f"{page.name}: there is no extra {extra}"


def test_every_exit_status_has_its_section() -> None:
    headings = re.findall(r"^## (\d+) (\w+)$", EXIT_CODES.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [(str(code.value), code.name) for code in ExitCode]


def test_the_map_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (ROOT / "flmq").glob("*/__init__.py")]
    assert len(rooms) > 10
    for room in rooms:
        assert f"| `flmq/{room}` |" in page, f"docs/architecture.md does not name flmq/{room}"
