"""A line of the log is one JSON object, whoever chose what is in it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping

import pytest

from flmq.common.environment import InvalidLogFormat, LogFormat, log_format
from flmq.common.json_lines import JsonLines
from flmq.common.logger import LOG_FIELDS, console_formatter, get_logger, logging_about
from flmq.common.phase import Phase
from flmq.observe.events import TaskRef

HOSTILE = 'x\n{"level": "CRITICAL"}\r\n\x1b[2J\u2028\u202e"\\\x00' + "é" * 5


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def last(self) -> dict[str, object]:
        return parsed(self.lines[-1])


def parsed(line: str) -> dict[str, object]:
    assert line.isascii()
    assert len(line.splitlines()) == 1
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def heard() -> Heard:
    handler = Heard()
    log = get_logger("flmq.test_json_lines")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.DEBUG)
    return handler


log = logging.getLogger("flmq.test_json_lines")


def test_a_line_says_what_it_is_about(heard: Heard) -> None:
    task = TaskRef("job", 3, Phase.FIT, "ann.example.org", "t-1")
    with logging_about(task, run="ab12"):
        log.warning("training takes %d s", 7)
    found = heard.last
    time = found.pop("time")
    assert isinstance(time, str)
    assert (time[10], time[-1], len(time)) == ("T", "Z", 24)
    assert found == {
        "level": "WARNING",
        "logger": "flmq.test_json_lines",
        "message": "training takes 7 s",
        "job": "job",
        "run": "ab12",
        "round": 3,
        "phase": "fit",
        "client": "ann.example.org",
        "task": "t-1",
    }


def test_what_is_not_known_is_left_out(heard: Heard) -> None:
    log.info("started")
    assert set(heard.last) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("name", LOG_FIELDS)
def test_a_hostile_name_stays_in_its_field(heard: Heard, name: str) -> None:
    with logging_about(**{name: HOSTILE}):
        log.info("about %s", HOSTILE)
    found = heard.last
    assert found["level"] == "INFO"
    assert HOSTILE in found.values()


def test_a_text_without_end_is_cut(heard: Heard) -> None:
    with logging_about(job="j" * 10**6):
        log.info("m" * 10**6)
    assert len(heard.lines[-1]) < 100_000


def test_an_exception_is_a_field(heard: Heard) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("it failed")
    found = heard.last
    error = found["exception"]
    assert isinstance(error, Mapping)
    assert found["message"] == "it failed"
    assert error["type"] == "ValueError"
    assert "\x1b" not in error["message"]
    assert "test_json_lines.py" in error["traceback"]


def test_an_exception_that_has_no_text_is_written_all_the_same(heard: Heard) -> None:
    class Dumb(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    try:
        raise Dumb
    except Dumb:
        log.log(logging.ERROR, "it failed", exc_info=sys.exc_info())
    assert heard.last["exception"]["message"] == "it has no text"  # type: ignore[index]


def test_the_environment_names_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLMQ_LOG_FORMAT", raising=False)
    assert log_format() is LogFormat.TEXT
    assert not isinstance(console_formatter(), JsonLines)
    monkeypatch.setenv("FLMQ_LOG_FORMAT", "json")
    assert isinstance(console_formatter(), JsonLines)
    monkeypatch.setenv("FLMQ_LOG_FORMAT", "yaml")
    with pytest.raises(InvalidLogFormat, match="FLMQ_LOG_FORMAT is 'yaml': give text or json"):
        log_format()
