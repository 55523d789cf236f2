"""Commands as they are typed: what they refuse, with which status and words."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flmq import __version__
from flmq.broker import persistent_nodes as standing
from flmq.cli.exit_codes import ExitCode
from flmq.cli.folders import RunFolderNotWritable
from flmq.cli.main import app
from flmq.cli.options import InvalidPair, pairs
from flmq.client.folders import ClientFolderNotWritable
from flmq.common.errors import UsageError
from flmq.common.urls import parse_broker_url
from flmq.datasets.errors import MissingExtra
from tests.processes import environment, start

SECRET = "s3cret-pass"
SERVER = ("server", "flmq.cli.demo.digits:server")
CLIENT = ("client", "flmq.cli.demo.digits:client")


def _flmq(folder: Path, url: str | None, *arguments: str) -> tuple[int, str]:
    """Run a command as a user would; its status and what it wrote."""
    env = environment(url or "")
    if url is None:
        del env["FLMQ_BROKER_URL"]
    output = folder / "output"
    process = start([sys.executable, "-m", "flmq", *arguments], output, folder, env)
    return process.wait(60), output.read_text(encoding="utf-8")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("command", [SERVER, CLIENT])
def test_without_a_broker_a_command_says_where_it_looked(
    tmp_path: Path, command: tuple[str, str]
) -> None:
    port = _free_port()
    status, said = _flmq(tmp_path, f"amqp://user:{SECRET}@127.0.0.1:{port}/x", *command)
    assert status == 3
    assert f"127.0.0.1:{port}" in said
    assert "flmq: BrokerUnavailable: " in said
    assert "Traceback" not in said
    assert SECRET not in said


def test_without_a_url_a_command_says_how_to_give_one(tmp_path: Path) -> None:
    status, said = _flmq(tmp_path, None, *CLIENT)
    assert status == 2
    assert "FLMQ_BROKER_URL" in said
    assert "flmq broker up" in said


def test_the_doctor_agrees_with_the_server_and_is_quiet_about_what_is_well(tmp_path: Path) -> None:
    status, said = _flmq(tmp_path, None, "doctor", "--quiet")
    assert status == ExitCode.CHECK_FAILED
    assert "FLMQ_BROKER_URL" in said
    marks = {line[:2] for line in said.splitlines()}
    assert marks == {"!!", "  "}


def test_wrong_credentials_and_a_missing_virtual_host_end_a_command_at_once(
    broker_url: str, tmp_path: Path
) -> None:
    good = parse_broker_url(broker_url)
    wrong = broker_url.replace(good.password, SECRET)
    status, said = _flmq(tmp_path, wrong, *CLIENT, "--client-id=a")
    assert status == 3
    assert "flmq: BrokerAccessRefused: " in said
    assert good.user in said
    status, other = _flmq(tmp_path, good.with_vhost("nowhere").full, *SERVER)
    assert status == 3
    assert "flmq: BrokerAccessRefused: " in other
    assert "nowhere" in other
    for text in (said, other):
        assert SECRET not in text
        assert good.password not in text
        assert "Traceback" not in text


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no app of that name": (("client", "nowhere:client"), "there is no module 'nowhere'"),
    "a round of no time": (
        (*SERVER, "--round-timeout=-3"),
        "--round-timeout: round_timeout is -3.0",
    ),
    "an app of the wrong type": (("client", "flmq.cli.demo.digits:LEARNING_RATE"), "is a float;"),
    "a server of the wrong type": (("server", "flmq.cli.demo.digits:MODELS"), "is a dict;"),
    "an empty client id": ((*CLIENT, "--client-id="), "client id '' is not usable"),
    "a long client id": ((*CLIENT, "--client-id=" + "x" * 65), "is not usable: choose 1 to 64"),
    "a client id that ends in a dot": (
        (*CLIENT, "--client-id=a."),
        "client id 'a.' is not usable",
    ),
    "a job with a space": ((*SERVER, "--job=a b"), "job name 'a b' is not usable"),
    "a property that is no pair": ((*CLIENT, "--property=gpu"), "not of the form key=value"),
    "properties without end": (
        (*CLIENT, "--property=notes=" + "x" * 70_000),
        "properties of 70005 bytes: 65536 at most",
    ),
    "a list of clients that is not there": (
        (*SERVER, "--clients-allow=nowhere"),
        "nowhere: the allow list cannot be read",
    ),
    "a setting that is no pair": ((*SERVER, "--config==3"), "not of the form key=value"),
    "a broker that is no url": ((*CLIENT, "--broker=http://u:p@h/"), "is not usable"),
    "too many to kill": (("demo", "--clients=3", "--kill=4"), "are too many of 3 clients"),
    "kills without processes": (("demo", "--in-memory", "--kill=1"), "drop one of the two"),
    "kills in too few rounds": (("demo", "--rounds=2", "--kill=1"), "give --rounds 3 or more"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_with_what_to_do(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLMQ_BROKER_URL", f"amqp://u:{SECRET}@127.0.0.1:{_free_port()}/x")
    arguments, said = REFUSED[what]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError), result.output
    assert said in str(result.exception)


@pytest.mark.parametrize(
    ("command", "in_the_way"),
    [
        ((*SERVER, "--job=a"), "runs"),
        ((*SERVER, "--job=a", "--fresh"), "runs"),
        (("demo", "--job=a"), "runs/a"),
        (("demo", "--job=a", "--in-memory"), "runs"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named(
    command: tuple[str, ...], in_the_way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / in_the_way
    file.parent.mkdir(exist_ok=True)
    file.touch()
    monkeypatch.setenv("FLMQ_BROKER_URL", f"amqp://127.0.0.1:{_free_port()}/x")
    result = CliRunner().invoke(app, (*command, "--runs-dir", str(tmp_path / "runs")))
    assert isinstance(result.exception, RunFolderNotWritable), result.output
    assert f"{tmp_path / 'runs' / 'a'}: cannot be written: " in str(result.exception)


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("matplotlib", ("demo",)),
        ("matplotlib", ("demo", "--in-memory")),
        ("matplotlib", (*SERVER, "--picture")),
        ("sklearn", ("demo",)),
        ("sklearn", ("demo", "--in-memory")),
    ],
)
def test_what_is_missing_at_the_end_is_said_before_anything_is_trained(
    command: tuple[str, ...], library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setenv("FLMQ_BROKER_URL", f"amqp://127.0.0.1:{_free_port()}/x")
    result = CliRunner().invoke(app, (*command, "--runs-dir", str(tmp_path / "runs")))
    assert isinstance(result.exception, MissingExtra), result.output
    assert "pip install 'flmq[demo]'" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "in_the_way", "named"),
    [
        ("--state-dir", "state", "state/a/spool"),
        ("--state-dir", "state/a", "state/a/spool"),
        ("--state-dir", "state/a/spool", "state/a/spool"),
        ("--cache-dir", "state", "state"),
    ],
)
def test_a_clients_folder_that_cannot_be_written_is_named_before_a_broker_is_asked(
    tmp_path: Path, option: str, in_the_way: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / in_the_way
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    monkeypatch.setenv("FLMQ_BROKER_URL", f"amqp://127.0.0.1:{_free_port()}/x")
    result = CliRunner().invoke(app, (*CLIENT, "--client-id=a", option, str(tmp_path / "state")))
    assert isinstance(result.exception, ClientFolderNotWritable), result.output
    said = str(result.exception)
    assert said.startswith(f"{tmp_path / named}: cannot be written: ")
    assert said.endswith(f"or give another folder with {option}")


@pytest.mark.parametrize("command", ["server", "client", "demo"])
def test_help_names_the_variables_and_not_what_is_in_them(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLMQ_BROKER_URL", f"amqp://u:{SECRET}@h/x")
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "FLMQ_BROKER_URL" in result.output
    assert SECRET not in result.output


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"flmq {__version__}\n")


def test_pairs_are_read_as_what_they_look_like() -> None:
    texts = ["gpu=TRUE", "cores=4", "share=0.5", "name=a=b", "empty=", "version=1.2.3", "neg=-1e3"]
    assert pairs("--property", texts) == {
        "gpu": True,
        "cores": 4,
        "share": 0.5,
        "name": "a=b",
        "empty": "",
        "version": "1.2.3",
        "neg": -1000.0,
    }
    assert pairs("-p", ['bad="1"', 'flag="true"', 'one="']) == {
        "bad": "1",
        "flag": "true",
        "one": '"',
    }
    assert [type(value) for value in pairs("-p", ["a=1", "b=1.0", "c=true"]).values()] == [
        int,
        float,
        bool,
    ]
    for bad in ("", "=", "=x", "x"):
        with pytest.raises(InvalidPair):
            pairs("--property", [bad])


MISTAKES = {
    "a library that is not there": ("import math\n\nimport nosuchlib\n", "line 3, in <module>"),
    "an error at import": ("import math\n\nx = 1 / 0\n", "x = 1 / 0"),
    "an error of syntax": ("import math\n\ndef f(:\n", "def f(:"),
    "an error in the function": ("def server():\n    return 1 / 0\n", "return 1 / 0"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_the_app_shows_the_users_line_and_no_frames_of_ours(
    what: str, tmp_path: Path
) -> None:
    source, line = MISTAKES[what]
    (tmp_path / "mine.py").write_text(source)
    status, said = _flmq(tmp_path, "amqp://u:p@127.0.0.1:1/x", "server", "mine:server")
    assert status == (1 if "function" in what else 2)
    assert line in said
    assert str(tmp_path / "mine.py") in said
    for ours in ("typer", "click", "flmq/cli", "frozen"):
        assert ours not in said


@pytest.mark.parametrize("typed", [["servr"], ["runs", "shwo"], ["broker", "stauts"]])
def test_a_command_of_a_similar_name_is_suggested_once(typed: list[str]) -> None:
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 2
    assert " ".join(result.output.split()).count("Did you mean") == 1


def test_another_node_is_used_and_started_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["broker", "status", "--name=other"])
    assert result.exit_code == 6
    assert "start it: flmq broker up --name other\n" in result.output
    node = standing.StandingNode(
        "other", "amqp://u:p@h/x", "amqp://u@h/x", 1, 1, None, str(tmp_path), "log", 0.0
    )
    started = standing.StandingUp(node, already=False)
    monkeypatch.setattr(standing, "up", lambda name, plugins, **_: started)
    result = CliRunner().invoke(app, ["broker", "up", "--name=other"])
    assert "use it in this shell:  eval $(flmq broker up --name other)\n" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*CLIENT, "--log-format=json", "--nope"), "No such option"),
        (("client", "--log-format", "json"), "Missing argument 'APP'"),
        ((*CLIENT, "--log-format", "json", "--heartbeat=x"), "is not a valid float"),
    ],
)
def test_a_command_that_cannot_be_read_is_a_line_for_programs_where_the_log_is(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("FLMQ_LOG_FORMAT", "text")
    monkeypatch.setattr(sys, "argv", ["flmq", *arguments])
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == ExitCode.USAGE
    (line,) = result.output.splitlines()
    told = json.loads(line)
    assert told["level"] == "CRITICAL"
    assert said in told["message"]
