"""Text from outside: it cannot steer a terminal, forge a line of a log, or fill a screen."""

from __future__ import annotations

import logging

import pytest

from flmq.common.cleaning import clean_text, one_line
from flmq.common.logger import logger

HOSTILE = {
    "clear screen": "\x1b[2J",
    "title": "\x1b]0;owned\x07",
    "8-bit csi": "\x9b31m",
    "backspace": "a\x08b",
    "bidi override": "\u202etxt.exe",
    "bidi isolate": "\u2066x\u2069",
    "zero width": "a\u200bb",
    "line separator": "a\u2028b",
    "next line": "a\x85b",
    "form feed": "a\x0cb",
    "null": "a\x00b",
    "lone surrogate": "a\udcffb",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_steers_a_terminal_is_taken_out(text: str) -> None:
    for cleaned in (one_line(text), clean_text(text)):
        assert cleaned.isprintable()
        assert cleaned


@pytest.mark.parametrize("text", ["a\nb", "a\r\n\tb", "a \u2028 b", "  a b ", "a\x85\x0cb"])
def test_one_line_is_one_line(text: str) -> None:
    assert one_line(text) == "a b"


def test_a_line_is_bounded_however_long_the_text() -> None:
    assert one_line("x" * 1000, 10) == "xxxxxxxxx…"
    assert one_line(" " * 10_000_000 + "x", 10) == ""


def test_a_text_keeps_its_lines_and_none_can_pass_for_another() -> None:
    assert clean_text("a\r\nb\n\tc\rd", indent="  ") == "a\n  b\n      c\n  d"


def test_what_is_logged_is_clean_whatever_handlers_the_program_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    logger.warning("client %s: %s", "a", "no\x1b[2J\n2026-01-01 00:00:00,000 ERROR forged")
    (record,) = caplog.records
    assert record.getMessage() == (
        "client a: no\N{REPLACEMENT CHARACTER}[2J\n    2026-01-01 00:00:00,000 ERROR forged"
    )
