"""The log goes where it should, and nowhere when it is only imported."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flmq
from flmq.common.logger import (
    LOG_FIELDS,
    LOGGER_NAME,
    about,
    configure,
    get_logger,
    log,
    logger,
    logging_about,
)
from flmq.common.phase import Phase
from flmq.observe.events import TaskRef


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Take away what a test adds to the logger, which is the process's own."""
    handlers, level = list(logger.handlers), logger.level
    yield
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


def _run(program: str) -> str:
    """Standard error of a fresh process: logging is set up once a process."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr


def test_log_takes_a_level_and_arguments_as_in_flower(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        log(logging.INFO, "round %s of %s", 1, 3)
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("flmq", "round 1 of 3")
    ]


def test_configure_writes_a_file_with_the_identifier(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    configure("100%d", str(file))
    log(logging.DEBUG, "grüße")
    line = file.read_text(encoding="utf-8")
    assert "| DEBUG | 100%d | test_logger.py:" in line
    assert line.endswith("| grüße\n")


def test_configure_without_a_file_changes_nothing() -> None:
    before = (list(logger.handlers), logger.level)
    configure("anything")
    assert (logger.handlers, logger.level) == before


def test_importing_prints_nothing() -> None:
    program = "from flmq.common import log; log(20, 'quiet')"
    assert _run(program) == ""


def test_console_shows_from_its_level_on_and_once() -> None:
    program = (
        "from flmq.common.logger import log, show_on_console\n"
        "show_on_console(); show_on_console()\n"
        "log(10, 'detail'); log(20, 'shown')"
    )
    [line] = _run(program).splitlines()
    assert line.endswith("INFO    shown")


def test_console_leaves_a_programs_own_logging_alone() -> None:
    program = (
        "import logging; logging.basicConfig(format='mine %(message)s', level=logging.WARNING)\n"
        "from flmq.common.logger import log, show_on_console\n"
        "show_on_console()\n"
        "log(20, 'info'); log(30, 'warning')"
    )
    assert _run(program) == "mine warning\n"


def test_a_record_says_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    task = TaskRef("job", 3, Phase.FIT, "alice", "t1")
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        logger.info("nothing")
        logger.info("one line", extra=about(task))
        with logging_about(job="other"), logging_about(client_id="bob", server_round=1):
            logger.info("in a block")
            logger.info("its own word goes before", extra=about(task, client_id="carol"))
        logger.info("nothing again")
    fields = [[getattr(record, name) for name in LOG_FIELDS] for record in caplog.records]
    assert fields == [
        [None] * 6,
        ["job", None, 3, "fit", "alice", "t1"],
        ["other", None, 1, None, "bob", None],
        ["job", None, 3, "fit", "carol", "t1"],
        [None] * 6,
    ]


def test_loggers_below_flmqs_own_clean_and_say_what_they_are_about_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    below = get_logger(f"{LOGGER_NAME}.test")
    assert get_logger(f"{LOGGER_NAME}.test") is below
    with logging_about(job="job"):
        below.warning("two\nlines")
    (record,) = caplog.records
    assert record.getMessage() == "two\n    lines"
    assert [getattr(record, name) for name in LOG_FIELDS] == ["job", *[None] * 5]


def test_every_module_has_its_logger_from_here() -> None:
    """One of `logging.getLogger` would pass on what peers say as it comes."""
    found = re.compile(r"logging\.getLogger\((?!LOGGER_NAME|\"pika\"|\w+\.__name__)")
    package = Path(flmq.__file__).parent
    theirs = [path for path in package.rglob("*.py") if found.search(path.read_text("utf-8"))]
    assert theirs == [package / "common" / "logger.py"]
