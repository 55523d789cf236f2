"""A real run on the page's API: live, over the page's own death, and equal to history.json."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flmq.cli.page import Beside
from flmq.common.logger import LOGGER_NAME
from flmq.observe.record import RoundRecord, RunRecord, load_record
from tests.conftest import SessionBroker
from tests.processes import Commands
from tests.ui.live_app import CLIENTS, ROUNDS
from tests.ui.servers import PageServer

JOB = "live"
_PATIENCE = 60.0


class Follower(threading.Thread):
    """Follows a run as the page does: from the stream what has changed, and then that."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.rounds: dict[int, dict[str, Any]] = {}
        self.seen: dict[int, float] = {}
        """When each round was here, in Unix seconds."""
        self.breaks = 0
        self.last_id = ""
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._follow()
            self.breaks += 1
            time.sleep(0.05)

    def _follow(self) -> None:
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        stream = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            stream.request("GET", f"/api/stream?job={JOB}", headers=headers)
            response = stream.getresponse()
            while not self.over.is_set():
                line = response.readline()
                if not line:
                    return
                if line.startswith(b"id: "):
                    self.last_id = line[4:].strip().decode()
                if line.startswith(b"data: "):
                    self._fetch(json.loads(line[6:]))
        finally:
            stream.close()

    def _fetch(self, told: dict[str, Any]) -> None:
        asking = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            asking.request("GET", f"/api/runs/{JOB}/rounds?since={told['rounds_from']}")
            found = json.loads(asking.getresponse().read())
        finally:
            asking.close()
        for each in found["rounds"]:
            self.rounds[each["round"]] = each
            self.seen.setdefault(each["round"], time.time())


class Lived:
    """What is left of the run."""

    def __init__(self, runs_dir: Path, follower: Follower, page: PageServer, said: str) -> None:
        self.runs_dir = runs_dir
        self.follower = follower
        self.page = page
        self.said = said
        """By the server."""
        self.record: RunRecord = load_record(runs_dir / JOB)


@pytest.fixture(scope="module")
def lived(broker_node: SessionBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """Runs a job; the page's server is killed by SIGKILL meanwhile, and started again."""
    folder = tmp_path_factory.mktemp("live")
    vhost = f"test-{folder.name}"
    broker_node.management.add_vhost(vhost)
    commands = Commands(broker_node.address.with_vhost(vhost).full, folder)
    page = PageServer(folder / "runs")
    follower = Follower(page.port)
    try:
        beside = ("--ui", "--ui-port=0")
        server = commands.run("server", "tests.ui.live_app:server", f"--job={JOB}", *beside)
        ids = f"--client-ids=client-{{1..{len(CLIENTS)}}}"
        commands.run("client", "tests.ui.live_app:client", ids, "--ack=result")
        _until(lambda: (folder / "runs" / JOB / "journal.db").exists(), commands)
        follower.start()
        _until(lambda: len(follower.rounds) >= 3, commands)
        page.end(signal.SIGKILL)
        time.sleep(1.5)
        page = PageServer(folder / "runs", port=page.port)
        assert server.wait(_PATIENCE) == 0, commands.outputs()
        _until(lambda: len(follower.rounds) >= ROUNDS, commands)
        yield Lived(folder / "runs", follower, page, commands.output(server))
    finally:
        follower.over.set()
        page.end(signal.SIGKILL)
        commands.end()
        broker_node.management.delete_vhost(vhost)


def _until(there: Any, commands: Commands | None) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not there():
        assert time.monotonic() < deadline, "" if commands is None else commands.outputs()
        time.sleep(0.05)


def _same(shown: dict[str, Any], recorded: RoundRecord) -> None:
    """See that a round is shown as history.json has it."""
    for name in ("loss", "bytes_down", "bytes_up", "evaluate_loss", "note", "changed"):
        assert shown[name] == getattr(recorded, name), name
    for name in ("metrics", "fit_metrics", "evaluate_metrics", "closed"):
        assert shown[name] == dict(getattr(recorded, name)), name
    assert shown["digest"] == recorded.digest
    assert shown["seconds"] == pytest.approx(recorded.seconds, abs=0.001)
    for phase in ("fit", "evaluate"):
        counts = getattr(recorded, phase)
        for name in ("asked", "accepted", "failed", "rejected", "silent", "late", "duplicate"):
            assert shown[phase][name] == getattr(counts, name), (phase, name)


def test_what_was_followed_over_the_pages_death_is_complete(lived: Lived) -> None:
    followed = lived.follower.rounds
    recorded = {each.server_round: each for each in lived.record.rounds}
    assert lived.follower.breaks >= 1
    assert sorted(recorded) == list(range(1, ROUNDS + 1))
    assert sorted(number for number in followed if number > 0) == sorted(recorded)
    for number, each in recorded.items():
        _same(followed[number], each)
    assert lived.follower.last_id.startswith(f"{ROUNDS}.")


def test_a_round_is_there_soon_after_it_closed(lived: Lived) -> None:
    seen, rounds = lived.follower.seen, lived.follower.rounds
    delays = [seen[number] - rounds[number]["closed_ms"] / 1000 for number in (2, 3)]
    # The goal, one second, is for a machine that has nothing else to do.
    assert min(delays) < 5, delays
    assert lived.record.rounds[2].fit.failed == 1


def test_each_part_is_as_recorded(lived: Lived) -> None:
    for recorded in lived.record.rounds:
        found = lived.page.get("runs", JOB, "rounds", str(recorded.server_round))
        shown = {
            (phase["phase"], part["client"]): part
            for phase in found["phases"]
            for part in phase["parts"]
        }
        assert len(shown) == len(recorded.outcomes)
        for each in recorded.outcomes:
            part = shown[each.phase, each.client_id]
            assert part["outcome"] == each.word
            assert part["reason"] == each.reason
            assert part["examples"] == each.num_examples
            assert part["bytes_up"] == each.bytes
            assert part["metrics"] == dict(each.metrics)
            assert each.times is not None
            assert part["published_ms"] == each.times.published_ms
            assert part["counted_ms"] == each.times.counted_ms
            assert part["taken_ms"] == each.times.taken_ms


def test_heads_marks_clients_and_log_tell_of_the_run(lived: Lived) -> None:
    page = lived.page
    (head,) = page.get("runs")["runs"]
    assert head["job"] == JOB
    assert head["state"] == "finished"
    assert (head["round"], head["num_rounds"]) == (ROUNDS, ROUNDS)
    assert head["loss"] == lived.record.final_loss
    assert head["digest"] == lived.record.rounds[-1].digest
    assert head["courses"]["loss"] == [[r.server_round, r.loss] for r in lived.record.rounds]
    whole = page.get("runs", JOB)
    assert [each["ended"] for each in whole["servers"]] == ["finished"]
    assert whole["servers"][0]["how"] == "begun"
    clients = {each["client"]: each for each in page.get("runs", JOB, "clients")["clients"]}
    assert sorted(clients) == sorted(CLIENTS)
    assert clients["client-2"]["failed"] == 1
    failed = page.get("runs", JOB, "clients", "client-2")
    assert "no <b>data</b> today" in failed["errors"][0]["reason"]
    assert "Traceback" in failed["errors"][0]["detail"]
    assert [each["status"] for each in page.get("runs", JOB, "clients", "client-3")["presence"]]
    found = page.get("runs", JOB, "log", query="search=14 rounds&limit=5".replace(" ", "%20"))
    assert any(f"job {JOB}: {ROUNDS} rounds" in line["text"] for line in found["lines"])
    first = page.get("runs", JOB, "log", query="limit=1")
    assert first["earlier"]
    before = page.get("runs", JOB, "log", query=f"limit=1&before={first['lines'][0]['id']}")
    assert before["lines"][0]["id"] < first["lines"][0]["id"]


def test_the_record_alone_shows_the_same_rounds(lived: Lived, tmp_path: Path) -> None:
    (tmp_path / "runs" / JOB).mkdir(parents=True)
    text = (lived.runs_dir / JOB / "history.json").read_bytes()
    (tmp_path / "runs" / JOB / "history.json").write_bytes(text)
    with PageServer(tmp_path / "runs") as page:
        shown = page.get("runs", JOB, "rounds")["rounds"]
        assert [each["round"] for each in shown] == list(range(1, ROUNDS + 1))
        for each, recorded in zip(shown, lived.record.rounds, strict=True):
            _same(each, recorded)
        assert page.get("runs")["runs"][0]["state"] == "finished"


def test_a_server_with_ui_serves_a_page_that_ends_with_it(lived: Lived) -> None:
    found = re.search(r"runs in runs: http://127\.0\.0\.1:(\d+)/", lived.said)
    assert found, lived.said
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found[1])), timeout=5).close()


def test_a_page_that_cannot_be_served_keeps_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(LOGGER_NAME), "propagate", True)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Beside(ui=True, ui_port=port).shown(tmp_path, "amqp://h/v", said.append):
            _until(lambda: said, None)
    assert "no page is served" in said[0]
    assert f"cannot be served at 127.0.0.1:{port}" in caplog.text
    assert "give another --port" in caplog.text
