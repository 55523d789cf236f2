"""Each claim of docs/security.md names its test, and the test exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def _functions(path: str) -> set[str]:
    return set(re.findall(r"^\s*def (test_\w+)\(", (ROOT / path).read_text(), re.MULTILINE))


def test_the_tests_that_are_named_exist() -> None:
    for path, name in NAMED:
        assert (ROOT / path).is_file(), path
        assert name in _functions(path), f"{path}::{name}"


def test_each_row_of_attempts_names_a_test() -> None:
    """A table whose last column is headed "test" has a test in each row."""
    in_table = False
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            in_table = False
        elif line.rstrip("| ").endswith("| test"):
            in_table = True
        elif in_table and not set(line) <= set("|-: "):
            assert re.search(r"`tests/[\w/]+\.py::test_\w+`", line), line
