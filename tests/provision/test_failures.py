"""Provision that is killed, or meets a broker that refuses, answers rubbish, or is not there."""

from __future__ import annotations

import errno
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from typer.testing import CliRunner

from flmq.cli.exit_codes import ExitCode
from flmq.cli.main import app
from flmq.common.crashpoints import CRASH_AT
from flmq.common.credentials import login_of
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    BrokerRefusal,
    BrokerUnavailable,
    StoredDataError,
    UsageError,
)
from flmq.common.files import create_private
from flmq.common.urls import parse_broker_url
from flmq.provision.passwords import FolderNotWritable, Passwords
from flmq.provision.reading import read_provision
from tests.provision.stage import Stage

TEXT = '[[client]]\nids = "@c-{0..29}"\n[[server]]\nuser = "@server"\n'
FEWER = '[[client]]\nids = "@c-{0..14}"\n[[server]]\nuser = "@server"\n'


def command(stage: Stage, *more: str) -> list[str]:
    options = ["--file", str(stage.file), "--passwords", str(stage.passwords.folder)]
    return ["provision", *more, *options]


def start(stage: Stage, *more: str, crash: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "flmq", *command(stage, *more)],
        env={**os.environ, **stage.environ, CRASH_AT: crash},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(stage: Stage, text: str) -> None:
    """Run again, to the end; and see that everything is there and that it was the last change."""
    stage.apply(text)
    marks = stage.call("GET", "/api/definitions/@")["exchanges"]
    assert any(each["name"] == "flmq.provisioned" for each in marks)
    stage.connect("c-14").close()


@pytest.mark.parametrize(
    "point", ["provision.passwords_written", "provision.removed", "provision.made"]
)
def test_killed_on_the_way_and_run_again(stage: Stage, point: str) -> None:
    stage.says(TEXT)
    process = start(stage, "--yes", crash=point)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    marked = stage.prefix in {each["name"] for each in stage.call("GET", "/api/vhosts")} and any(
        each["name"] == "flmq.provisioned"
        for each in stage.call("GET", "/api/definitions/@")["exchanges"]
    )
    assert not marked
    kept = {file.name: file.read_text() for file in stage.passwords.folder.glob("*.password")}
    assert len(kept) == 31
    finish(stage, TEXT)
    again = {file.name: file.read_text() for file in stage.passwords.folder.glob("*.password")}
    assert again == kept


def test_killed_while_the_broker_imports_and_while_clients_are_removed(stage: Stage) -> None:
    stage.says(TEXT)
    for text in (TEXT, FEWER):
        before = stage.users()
        stage.says(text)
        process = start(stage, "--yes")
        try:
            while process.poll() is None and stage.users() == before:
                time.sleep(0.01)
        finally:
            process.kill()
            process.communicate()
        finish(stage, text)
    assert len(stage.users()) == 16
    assert not [name for name in stage.queues() if name.endswith("c-15")]
    assert len(list(stage.passwords.folder.glob("*.password"))) == 16


def test_a_rotation_that_is_killed_is_finished_by_the_next_run(stage: Stage) -> None:
    stage.apply(FEWER)
    old = stage.password("c-14")
    process = start(stage, "rotate", "--all", crash="provision.rotated_files")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert stage.password("c-14") != old
    stage.connect("c-14", old).close()
    finish(stage, FEWER)


class _Api(http.server.BaseHTTPRequestHandler):
    """Answers each call alike."""

    answer: tuple[int, bytes] = (500, b"")

    def _say(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _say  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ((401, b'{"error":"not_authorised"}'), BrokerAccessRefused, "tag administrator"),
        ((403, b""), BrokerAccessRefused, "tag administrator"),
        ((404, b'{"error":"Object Not Found"}'), BrokerRefusal, "404"),
        ((500, b"<html>"), BrokerRefusal, "500"),
        ((200, b"<html>welcome</html>"), BrokerRefusal, "no management API"),
        ((200, b""), BrokerRefusal, "no management API"),
        ((200, b'{"a": 1}'), BrokerRefusal, "no management API"),
        ((200, b"[1, 2]"), BrokerRefusal, "no management API"),
        ((200, b'[{"x": "y"}]'), BrokerRefusal, "no management API"),
    ],
)
def test_an_api_that_answers_otherwise(
    stage: Stage, port: int, answer: tuple[int, bytes], error: type[BrokerError], says: str
) -> None:
    stage.says(TEXT)
    _Api.answer = answer
    api = f"http://u:secretword@127.0.0.1:{port}"
    wanted = read_provision(stage.file, {**stage.environ, "API": api})
    with pytest.raises(error, match=says) as raised:
        stage.plan(wanted)
    assert "site 'main'" in str(raised.value)
    assert "secretword" not in str(raised.value)
    assert not stage.passwords.folder.exists()


def test_an_api_that_is_not_there(stage: Stage, port: int) -> None:
    stage.says(TEXT)
    wanted = read_provision(stage.file, {**stage.environ, "API": "http://127.0.0.1:1"})
    with pytest.raises(BrokerUnavailable, match="rabbitmq-plugins enable"):
        stage.plan(wanted)


def test_files_of_passwords_that_cannot_be_used(stage: Stage) -> None:
    wanted = stage.says(FEWER)
    file = stage.passwords.file(stage.name("server"))
    for text in ("", "\n", "two\nlines\n"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        with pytest.raises(StoredDataError, match="must hold one line"):
            stage.plan(wanted)
    file.unlink()
    file.mkdir()
    with pytest.raises(StoredDataError, match="cannot be read"):
        stage.plan(wanted)


@pytest.fixture
def run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name, value in stage.environ.items():
        monkeypatch.setenv(name, value)
    return CliRunner()


def test_the_command_shows_asks_and_makes(stage: Stage, run: CliRunner) -> None:
    stage.says(FEWER)
    shown = run.invoke(app, command(stage, "--dry-run"))
    assert "15 clients" in shown.stdout
    assert "passwords of 16 users" in shown.stdout
    assert not stage.users()
    assert not stage.passwords.folder.exists()
    differs = run.invoke(app, command(stage, "check"))
    assert differs.exit_code == ExitCode.CHECK_FAILED
    asked = run.invoke(app, command(stage), input="n\n")
    assert isinstance(asked.exception, UsageError)
    assert not stage.users()
    made = run.invoke(app, command(stage), input="y\n")
    assert made.exit_code == 0, made.output
    assert len(stage.users()) == 16
    assert stage.password("server") not in made.output
    again = run.invoke(app, command(stage, "--yes"))
    assert again.stdout == "nothing to change\n"
    assert run.invoke(app, command(stage, "check")).exit_code == 0
    rotated = run.invoke(app, command(stage, "rotate", stage.name("server")))
    assert rotated.exit_code == 0
    stage.connect("server").close()
    to = stage.folder / "definitions"
    written = run.invoke(app, command(stage, "--definitions", str(to)))
    assert f"rabbitmqctl import_definitions {to / 'main.json'}" in written.stdout
    assert (to / "main.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "arguments",
    [
        ["provision", "--yes", "check"],
        ["provision", "rotate"],
        ["provision", "rotate", "--all", "somebody"],
        ["provision", "--site", "nowhere"],
        ["provision", "--file", "/nonexistent.toml"],
    ],
)
def test_what_the_command_does_not_do(stage: Stage, run: CliRunner, arguments: list[str]) -> None:
    stage.says(FEWER)
    more = [] if "--file" in arguments else ["--file", str(stage.file)]
    result = run.invoke(app, [*arguments, *more])
    assert isinstance(result.exception, UsageError)
    assert not stage.users()


def test_a_full_disk_changes_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(tmp_path / "passwords")
    passwords.write({"alice": "old", "bob": "old"})
    left = [2]

    def create(path: Path) -> BinaryIO:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return create_private(path)

    monkeypatch.setattr("flmq.provision.passwords.create_private", create)
    with pytest.raises(FolderNotWritable, match=r"passwords: cannot be written \(No space left"):
        passwords.write({"alice": "new", "bob": "new", "carol": "new"})
    assert passwords.read(["alice", "bob", "carol"]) == {"alice": "old", "bob": "old"}
    assert sorted(file.name for file in passwords.folder.iterdir()) == [
        "alice.password", "bob.password",
    ]  # fmt: skip


@pytest.mark.parametrize("option", ["--passwords", "--definitions"])
def test_a_folder_that_cannot_be_written_is_named(
    stage: Stage, run: CliRunner, option: str
) -> None:
    stage.says(TEXT)
    taken = stage.folder / "taken"
    taken.write_text("no folder")
    given = {"--passwords": str(stage.passwords.folder), "--definitions": str(stage.folder / "d")}
    words = [word for pair in {**given, option: str(taken)}.items() for word in pair]
    done = run.invoke(app, ["provision", "--file", str(stage.file), *words])
    assert isinstance(done.exception, FolderNotWritable)
    assert str(taken) in str(done.exception)


def test_a_password_is_what_a_client_reads_in_its_file(tmp_path: Path) -> None:
    passwords = Passwords(tmp_path)
    for text in ("plain\n", " with blanks \r\n", "a\x0bb\u2028c\n"):
        passwords.file("alice").write_text(text, encoding="utf-8", newline="")
        url = f"amqp://alice@h?password_file={passwords.file('alice')}"
        assert passwords.read(["alice"])["alice"] == login_of(parse_broker_url(url), {}).secret
