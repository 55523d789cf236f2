"""The page on monitoring: what it has one type does what it says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.monitoring import http
from flmq.monitoring.reading import _EVERY, _OLDEST
from flmq.transport import federation_topology
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.docs.pages import ROOT, blocks, commands
from tests.monitoring.scraping import get, until
from tests.processes import BIN, Commands, environment

PAGE = ROOT / "docs" / "monitoring.md"


@pytest.fixture
def started(broker_url: str, tmp_path: Path) -> Iterator[Commands]:
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    made = Commands(broker_url, tmp_path)
    yield made
    made.end()


def test_the_ports_that_it_opens_answer(started: Commands) -> None:
    typed = [line for line in commands(PAGE) if re.match("flmq .*--metrics-port 94", line)]
    assert [shlex.split(line)[1] for line in typed] == ["server", "client", "aggregate"]
    answered = []
    for line in typed:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = re.sub(r"--metrics-port \d+", f"--metrics-port {port}", line)
        started.run(*shlex.split(words)[1:])
        answered.append(f"http://127.0.0.1:{port}")
    for base in answered:
        until(lambda: _answers(base), started.outputs())  # noqa: B023
        assert get(f"{base}/healthz") == (200, "alive\n")


def _answers(base: str) -> bool:
    try:
        return get(f"{base}/metrics")[0] == 200
    except OSError:
        return False


def test_the_log_for_programs_is_as_it_shows(broker_url: str, tmp_path: Path) -> None:
    (script,) = [text for text in blocks(PAGE, "sh") if "FLMQ_LOG_FORMAT" in text]
    (shown,) = [json.loads(text) for text in blocks(PAGE, "json")]
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    env = environment("amqp://127.0.0.1:1/none")
    done = subprocess.run(
        ["sh", "-ec", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert set(lines[-1]) - {"exception"} <= set(shown)
    assert (lines[-1]["level"], lines[-1]["exception"]["type"]) == ("CRITICAL", "BrokerUnavailable")


def test_the_doctor_tells_programs(broker_url: str, tmp_path: Path) -> None:
    (line,) = [each for each in commands(PAGE) if each == "flmq doctor --json --quiet"]
    env = {**environment(broker_url), "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [BIN / "flmq", *shlex.split(line)[1:]], env=env, capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == []
    assert done.returncode == 0


def test_the_doctor_listens_to_clients(broker_url: str, tmp_path: Path) -> None:
    (line,) = [each for each in commands(PAGE) if each.startswith("flmq doctor --listen")]
    with RabbitMQTransport(broker_url) as transport:
        transport.declare(federation_topology())
        ran = subprocess.run(
            ["sh", "-c", line],
            cwd=tmp_path,
            env=environment(broker_url),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.stderr == ""
    assert "no client was heard in 2 s" in ran.stdout


def test_the_variables_of_opentelemetry_make_spans(started: Commands) -> None:
    (script,) = [text for text in blocks(PAGE, "sh") if "OTEL_" in text]
    (line,) = [each for each in script.splitlines() if each.startswith("flmq server")]
    assert "`OTEL_TRACES_EXPORTER=console`" in PAGE.read_text(encoding="utf-8")
    spans = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    server = started.run(*shlex.split(line)[1:], **spans)
    for name in ("alice", "bob"):
        started.run("client", "app:client", "--client-id", name, "--once")
    assert server.wait(60) == 0, started.outputs()
    said = started.output(server)
    assert {"server", "round", "phase fit"} <= set(re.findall(r'"name": "([\w ]+)"', said)), said


def test_the_limits_that_it_states_are_those_of_the_code() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"at most every {_EVERY:.0f} s, and left out once they are two minutes old" in text
    assert _OLDEST == 120
    assert "Requests are read for 5 s and 8 KB at most; of more than 32 connections" in text
    assert (http._PATIENCE, http._MOST_BYTES, http._MOST_CONNECTIONS) == (5.0, 8192, 32)


def test_its_extras_install() -> None:
    for line in commands(PAGE):
        for extra in re.findall(r"flmq\[(\w+)\]", line):
            text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            assert re.search(rf"^{extra} = \[", text, re.MULTILINE), extra
