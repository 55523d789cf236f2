"""Who may ask the page's server, and what it does with folders that hold no sound run."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flmq.cli.main import app
from flmq.ui.serving.changes import Changes
from flmq.ui.serving.serving import PageOptions, _guarding
from tests.ui.servers import PageServer
from tests.ui.synthetic import Synthetic, write_run

SOUND = "sound"
TOKEN = "a-token-of-24-characters"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A page over a sound run and several that are not."""
    runs = tmp_path_factory.mktemp("server") / "runs"
    sound = write_run(runs, Synthetic(SOUND, rounds=3, clients=4))
    for name in ("noise", "truncated", "foreign", "gone"):
        shutil.copytree(sound, runs / name)
    (runs / "noise" / "journal.db").write_bytes(bytes(range(256)) * 64)
    text = (sound / "journal.db").read_bytes()
    (runs / "truncated" / "journal.db").write_bytes(text[: len(text) // 2])
    (runs / "foreign" / "journal.db").unlink()
    with sqlite3.connect(runs / "foreign" / "journal.db") as other:
        other.execute("CREATE TABLE photos (id INTEGER)")
    other.close()
    shutil.rmtree(runs / "gone")
    (runs / "gone").mkdir()
    (runs / "gone" / "history.json").write_text("{", encoding="utf-8")
    (runs / "deep").mkdir()
    (runs / "deep" / "history.json").write_text("[" * 100_000, encoding="utf-8")
    (runs / "no-run").mkdir()
    (runs / "a-file").touch()
    with PageServer(runs) as server:
        yield server


def test_what_cannot_be_read_is_in_the_list_with_its_reason(page: PageServer) -> None:
    heads = {head["job"]: head for head in page.get("runs")["runs"]}
    assert sorted(heads) == ["deep", "foreign", "gone", "noise", SOUND, "truncated"]
    assert heads[SOUND]["state"] == "finished"
    for name in ("deep", "foreign", "gone", "noise"):
        assert heads[name]["state"] == "damaged", heads[name]
        assert heads[name]["problem"]
        assert page.get("runs", name)["state"] == "damaged"
        status, _, found = page.ask(f"/api/runs/{name}/rounds")
        assert status == 503
        assert found["error"]
    assert heads["truncated"]["state"] in ("damaged", "finished")


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/none",
        "/api/runs/..",
        "/api/runs/..%2f..%2fetc",
        "/api/runs/no-run",
        f"/api/runs/{'n' * 300}",
        f"/api/stream?job={'n' * 300}",
        "/api/runs/a%00b",
        f"/api/runs/{SOUND}/rounds/99",
        f"/api/runs/{SOUND}/rounds/{2**63}",
        f"/api/runs/{SOUND}/rounds?since=x",
        f"/api/runs/{SOUND}/clients/nobody",
        f"/api/runs/{SOUND}/log?before=1e9",
        "/api/stream?job=none",
        "/api/nothing",
    ],
)
def test_what_is_not_there_is_said_in_a_line(page: PageServer, path: str) -> None:
    status, _, found = page.ask(path)
    assert status == 404
    assert found["error"]


def test_only_reading_by_its_own_name_is_answered(page: PageServer) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert page.ask("/api/runs", method)[0] == 405
    assert page.ask("/api/runs", Host="evil.example")[0] == 403
    assert page.ask("/api/runs", Host=f"localhost:{page.port}")[0] == 200
    status, headers, body = page.ask("/runs/any/rounds/7")
    assert status == 200
    assert b"<main" in body
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert page.ask("/static/../serving/app.py")[0] == 404


def test_a_look_that_fails_once_ends_no_stream() -> None:
    looks = itertools.count()

    def versions(jobs: Collection[str] | None) -> dict[str, int]:
        look = next(looks)
        if look == 1:
            raise FileNotFoundError("taken away between two looks")
        return {SOUND: look}

    async def told() -> int:
        changes, count = Changes(versions, rest=0.0), 0
        async for found in changes.of(SOUND, idle=5.0):
            assert found == frozenset({SOUND})
            count += 1
            if count == 3:
                changes.end()
        return count

    # Playwright has a loop of its own on this thread, while its browser is there.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(asyncio.run, told()).result(60) == 3


def test_a_signal_ends_it_at_once_with_a_stream_open(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", Synthetic(SOUND, rounds=1, clients=2))
    with PageServer(tmp_path / "runs") as server:
        stream = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        stream.request("GET", "/api/stream")
        response = stream.getresponse()
        assert response.readline().startswith(b"retry:")
        begun = time.monotonic()
        server.end(signal.SIGTERM)
        assert time.monotonic() - begun < 10
        stream.close()


def test_a_token_is_asked_for_where_one_is_given(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n", encoding="utf-8")
    with PageServer(tmp_path / "runs", f"--token-file={token}") as server:
        assert TOKEN not in server.line
        assert server.ask("/api/runs")[0] == 401
        assert server.ask("/api/runs", Authorization="Bearer wrong-token-of-24-chars")[0] == 401
        assert server.ask("/api/runs", Authorization=f"Bearer {TOKEN}")[0] == 200
        status, headers, _ = server.ask(f"//evil.example/?token={TOKEN}")
        assert (status, headers["location"]) == (303, "/evil.example/")
        cookie = headers["set-cookie"].partition(";")[0]
        assert "httponly" in headers["set-cookie"].lower()
        assert server.ask("/api/runs", Cookie=cookie)[0] == 200
        # Cookies of another program of this host come along, whatever they look like.
        assert server.ask("/api/runs", Cookie=f'theirs={{"a": 1}}; {cookie}')[0] == 200


def test_a_token_that_no_cookie_can_have_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    for text in ("\N{EURO SIGN}" * 24, "one line of a token\nand another"):
        token.write_text(text, encoding="utf-8")
        result = CliRunner().invoke(app, ["ui", "--port=0", f"--token-file={token}"])
        assert "one line of ASCII" in str(result.exception) + result.output


def test_any_address_of_loopback_may_be_asked_by_itself() -> None:
    options = PageOptions(Path("runs"), "127.0.0.2", 0)
    assert "127.0.0.2" in (_guarding(options).hosts or ())


def test_a_port_that_is_taken_and_an_open_address_are_refused(tmp_path: Path) -> None:
    def said(*options: str) -> str:
        result = CliRunner().invoke(app, ["ui", f"--runs-dir={tmp_path}", *options])
        assert result.exit_code != 0
        return str(result.exception) + result.output

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "give another --port" in said(f"--port={taken.getsockname()[1]}")
    assert "--certfile and --keyfile" in said("--host=0.0.0.0", "--port=0")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(sys.modules):
        if name.startswith("flmq.ui.serving"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, ["ui", f"--runs-dir={tmp_path}"])
    assert "pip install 'flmq[ui]'" in str(result.exception) + result.output
