"""The event log of a run on disk: what it keeps, who may spoil it, what a reader sees meanwhile."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from flmq.common.logger import logger
from flmq.observe.eventlog.entries import KEPT, Kind, entry_of
from flmq.observe.eventlog.reader import EventLogReader
from flmq.observe.eventlog.schema import FILE
from flmq.observe.eventlog.writer import EventLog, EventLogOptions
from flmq.observe.events import (
    ClientPresence,
    ClientsAwaited,
    ConnectionChanged,
    EventsDropped,
    Note,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.record import killed_note
from flmq.ui.reading.befallen import away_of, marks_of, online_in

STARTED = RunStarted("job", 12, "FedAvg", "in memory")
HERE = ClientPresence("a", "online", "said hello", 1, "1.0")


def log_of(
    folder: Path, epoch: int = 1, *, resumed: bool = False, waited: bool = False
) -> EventLog:
    return EventLog(folder, EventLogOptions(epoch, resumed, waited))


def written(folder: Path, *events: RunEvent) -> EventLogReader:
    log = log_of(folder)
    for event in (STARTED, *events):
        log(event)
    log.close()
    return EventLogReader(folder)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[EventLogReader]:
    reader = EventLogReader(tmp_path)
    yield reader
    reader.close()


def test_what_befalls_a_run_is_kept_in_order(tmp_path: Path, reader: EventLogReader) -> None:
    written(
        tmp_path,
        HERE,
        killed_note(["a"], 3),
        ClientPresence("a", "away", "no heartbeat for 4 s", 0, "1.0"),
        ConnectionChanged("publishing", "lost", "closed"),
        Note("look here", 4),
        EventsDropped({"ClientOutcome": 3}),
        RunEnded("job", 12, 1.0),
    ).close()
    kinds = (Kind.PRESENCE, Kind.KILL, Kind.CONNECTION, Kind.NOTE, Kind.DROPPED)
    found = reader.of_kinds(*kinds)
    assert [(each.kind, each.word, each.who) for each in found] == [
        (Kind.PRESENCE, "online", "a"),
        (Kind.KILL, "", ""),
        (Kind.PRESENCE, "away", "a"),
        (Kind.CONNECTION, "lost", "publishing"),
        (Kind.NOTE, "", ""),
        (Kind.DROPPED, "", ""),
    ]
    assert found[0].numbers == {"online": 1, "version": "1.0"}
    assert found[1].server_round == 3
    (server,) = reader.servers()
    assert (server.pid, server.how, server.ended) == (os.getpid(), "begun", "finished")


def test_the_log_wants_no_event_of_which_it_keeps_nothing() -> None:
    kept = {type(event) for event in one_of_each() if entry_of(event) is not None}
    assert kept == set(KEPT)
    assert set(EventLog.wanted_events) == kept | {RunStarted, RunEnded}


def one_of_each() -> Iterator[RunEvent]:
    """Yield an event of each class, with a text or a number in each of its fields."""
    for kind in get_args(RunEvent):
        values: dict[str, Any] = {each.name: "x" for each in fields(kind)}
        if kind is EventsDropped:
            values = {"counts": {"Note": 1}}
        yield kind(**values)


def test_being_awaited_is_kept_once_however_often_it_is_said(
    tmp_path: Path, reader: EventLogReader
) -> None:
    awaited = ClientsAwaited(8, 3)
    written(tmp_path, awaited, awaited, ClientsAwaited(8, 4), RunEnded("job", 0, 0.0)).close()
    assert [each.numbers["online"] for each in reader.of_kinds(Kind.AWAITED)] == [3, 4]


def test_log_lines_are_kept_and_found(tmp_path: Path, reader: EventLogReader) -> None:
    log = log_of(tmp_path)
    log(STARTED)
    for number in range(5):
        logger.warning("line %d of 100%%", number, extra={"server_round": number})
    logger.debug("not this one")
    log.close()
    logger.warning("nor this one")
    lines = reader.log(before=None, search="", most=3)
    assert [each.text for each in lines] == [f"line {number} of 100%" for number in (2, 3, 4)]
    assert [each.server_round for each in lines] == [2, 3, 4]
    assert lines[0].word == "warning"
    earlier = reader.log(before=lines[0].id, search="", most=10)
    assert [each.text for each in earlier] == ["line 0 of 100%", "line 1 of 100%"]
    assert [each.text for each in reader.log(before=None, search="3 OF 100%", most=10)] == [
        "line 3 of 100%"
    ]
    assert not reader.log(before=None, search="_ine", most=10)


def test_a_server_killed_by_sigkill_is_one_that_did_not_end(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.observe.test_eventlog import *\n"
        "log = log_of(Path(sys.argv[1])); log(STARTED); log(HERE)\n"
        "print('said', flush=True); time.sleep(60)"
    )
    dying = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == "said\n"
        reader = EventLogReader(tmp_path)
        deadline = time.monotonic() + 20
        while not reader.presence():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        dying.kill()
    log = log_of(tmp_path, 2, resumed=True, waited=True)
    log(STARTED)
    log.close()
    first, second = reader.servers()
    assert first.to_unix_ms is None
    assert (second.how, second.epoch) == ("takeover", 2)
    (mark,) = marks_of([first, second], [])
    assert mark["kind"] == "takeover"
    assert f"process {dying.pid}) was killed, or lost" in mark["text"]
    assert [each.who for each in reader.presence("a")] == ["a"]
    reader.close()


def test_a_log_that_is_too_long_loses_its_oldest_lines_and_counts_them(tmp_path: Path) -> None:
    log = EventLog(tmp_path, EventLogOptions(1, False, False), most=50)
    log(STARTED)
    log(killed_note(["a"], 1))
    for number in range(200):
        logger.warning("line %d", number)
    time.sleep(0.2)
    for number in range(200, 260):
        logger.warning("line %d", number)
    log.close()
    reader = EventLogReader(tmp_path)
    kept = reader.log(before=None, search="", most=1000)
    left_out = reader.left_out()
    assert left_out["log"] + len(kept) == 260
    assert left_out["log"] > 0
    assert kept[-1].text == "line 259"
    assert len(reader.of_kinds(Kind.KILL)) == 1
    reader.close()


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\0" + bytes(4096)])
def test_a_damaged_log_is_put_aside_and_begun_anew(
    tmp_path: Path, reader: EventLogReader, content: bytes
) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert reader.presence() == []
    assert "cannot be read" in reader.problem
    written(tmp_path, HERE).close()
    assert [each.who for each in reader.presence()] == ["a"]
    assert reader.problem == ""
    assert (tmp_path / f"{FILE}.damaged").read_bytes() == content


def test_another_programs_database_is_put_aside_unharmed(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    written(tmp_path, HERE).close()
    with sqlite3.connect(tmp_path / f"{FILE}.damaged") as kept:
        assert kept.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    kept.close()


def test_a_folder_that_cannot_be_written_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        log = log_of(tmp_path / "missing")
        for _ in range(100):
            log(HERE)
        log(RunEnded("job", 0, 0.0))
    told = [each for each in caplog.records if "event log" in each.message]
    assert len(told) == 1
    assert "the run goes on without it" in told[0].message


def test_a_deleted_log_is_empty_for_who_reads_it(tmp_path: Path) -> None:
    reader = written(tmp_path, HERE)
    assert reader.latest_presence()
    for path in tmp_path.glob(f"{FILE}*"):
        path.unlink()
    assert reader.latest_presence() == []
    assert reader.servers() == []


def test_reading_writes_nothing(tmp_path: Path) -> None:
    reader = written(tmp_path, HERE)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    reader.presence()
    reader.servers()
    reader.close()
    after = {
        path.name: path.stat().st_mtime_ns
        for path in tmp_path.iterdir()
        if path.suffix == ".sqlite3"
    }
    assert after == {FILE: before[FILE]}


def test_a_text_that_is_no_utf8_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    reader = written(tmp_path, ClientPresence("a", "away", "half \ud800 a pair", 0))
    assert "half" in reader.presence()[0].text
    reader.close()


def test_from_when_to_when_a_client_was_away(tmp_path: Path, reader: EventLogReader) -> None:
    away = ClientPresence("a", "away", "", 0)
    gone = ClientPresence("a", "gone", "", 0)
    written(tmp_path, HERE, away, gone, HERE, ClientPresence("b", "away", "", 1)).close()
    presence = reader.presence()
    spans = away_of(presence)
    assert spans == {
        "a": [(presence[1].at_unix_ms, presence[3].at_unix_ms)],
        "b": [(presence[4].at_unix_ms, None)],
    }
    assert online_in(reader.latest_presence()) == 1


def test_an_outage_is_one_mark_from_the_first_loss_to_the_last_return(
    tmp_path: Path, reader: EventLogReader
) -> None:
    def changed(role: str, state: str) -> ConnectionChanged:
        return ConnectionChanged(role, state, "")

    written(
        tmp_path,
        changed("publishing", "connected"),
        changed("publishing", "lost"),
        changed("consuming", "lost"),
        changed("publishing", "connected"),
        changed("consuming", "connected"),
        changed("publishing", "blocked"),
    ).close()
    happened = reader.of_kinds(Kind.CONNECTION)
    outage, blocked = marks_of([], happened)
    assert (outage["at_ms"], outage["until_ms"]) == (happened[1].at_unix_ms, happened[4].at_unix_ms)
    assert (outage["kind"], blocked["kind"], blocked["until_ms"]) == ("outage", "blocked", None)


def test_numbers_that_are_damaged_are_none(tmp_path: Path) -> None:
    reader = written(tmp_path, *(ClientPresence(f"c{n}", "online", "", n) for n in range(4)))
    reader.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        for who, numbers in (("c0", "{"), ("c1", "[1]"), ("c2", '"x"')):
            connection.execute("UPDATE entries SET numbers = ? WHERE who = ?", (numbers, who))
    connection.close()
    assert [each.numbers for each in reader.presence()[:3]] == [{}, {}, {}]
    assert reader.presence()[3].numbers["online"] == 3
    reader.close()


def test_a_line_about_a_client_whose_name_is_no_utf8_ends_nothing(
    tmp_path: Path, reader: EventLogReader
) -> None:
    log = log_of(tmp_path)
    logger.warning("refused", extra={"client_id": "half \udcff"})
    logger.warning("and on")
    log.close()
    assert [each.text for each in reader.log(before=None, search="", most=9)] == [
        "refused",
        "and on",
    ]


def test_a_forked_process_writes_nothing_and_waits_for_nothing(
    tmp_path: Path, reader: EventLogReader
) -> None:
    log = log_of(tmp_path)
    # As if a thread held the lock as the process was forked.
    with log._waiting.mutex, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is what is tried here
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            logger.warning("from a child")
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    logger.warning("from its parent")
    log.close()
    assert [each.text for each in reader.log(before=None, search="from", most=9)] == [
        "from its parent"
    ]
