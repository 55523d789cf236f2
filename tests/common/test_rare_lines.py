"""A flood of warnings is some lines, and their number."""

from __future__ import annotations

import logging

import pytest

from flmq.common.rare_lines import RareLines


def test_a_flood_is_a_few_lines_and_none_is_uncounted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    lines = RareLines(lambda: now)
    with caplog.at_level(logging.WARNING, "flmq"):
        for number in range(1000):
            lines.warn(f"line {number}")
        assert [record.getMessage() for record in caplog.records] == [
            f"line {number}" for number in range(20)
        ]
        caplog.clear()
        now = 10.0
        lines.warn("another")
        lines.warn("one more")
        now = 1000.0
        lines.warn("the last")
    assert [record.getMessage() for record in caplog.records] == [
        "another (and 980 like it before, that were not logged)",
        "the last (and 1 like it before, that were not logged)",
    ]
    assert lines.count == 1003
