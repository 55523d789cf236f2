"""Commands that are stopped say what goes on, and end with the status of their signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flmq.cli import client, server
from flmq.cli.main import app
from flmq.cli.stopping import PART_OF_DEMO, TYPED_BROKER, in_order, typed_again
from flmq.client.options import WorkerOptions
from flmq.client.tasks.store import AckPolicy
from flmq.journal import Journal
from tests.journal.runs import begun, end_round
from tests.processes import BIN, environment

SECRET = "s3cret-pass"
_SERVER = "flmq server app:server"


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_ends_in_order_with_its_own_status(
    number: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as info, in_order(lambda: "this goes on"):
        os.kill(os.getpid(), number)
    assert info.value.code == status
    assert capsys.readouterr().err == "flmq: stopped: this goes on\n"


def test_a_part_of_a_demo_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PART_OF_DEMO, "1")
    with pytest.raises(SystemExit), in_order(lambda: "this goes on"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""


def test_the_command_is_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/flmq", *_SERVER.split()[1:], "-c", "a=b c", "--fresh"])
    assert typed_again(without=("--fresh",)) == f"{_SERVER} -c 'a=b c'"
    assert typed_again("--job=j") == f"{_SERVER} -c 'a=b c' --fresh --job=j"
    monkeypatch.setenv(TYPED_BROKER, "amqp://u:***@h/")
    assert typed_again(without=("--fresh",)).endswith(" '--broker=amqp://u:***@h/'")
    for typed in (["--job", "j"], ["--job=j"]):
        monkeypatch.setattr(sys, "argv", ["flmq", "server", *typed])
        assert typed_again("--job=other").startswith(f"flmq server {' '.join(typed)} ")


def _server(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """What a stopped server of job ``job`` says."""
    monkeypatch.setattr(sys, "argv", ["flmq", "server", "app:server", *options])
    told: list[str] = []

    def interrupt(command: server.ServerCommand) -> None:
        told.append(server._goes_on(command))

    monkeypatch.setattr(server, "serve", interrupt)
    monkeypatch.setenv("FLMQ_BROKER_URL", "amqp://localhost")
    CliRunner().invoke(app, ["server", "app:server", "--job=job", f"--runs-dir={folder}"])
    return told[0]


def test_a_server_says_what_becomes_of_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "job"
    again = f"{_SERVER} --job=job"
    said = _server(tmp_path, monkeypatch)
    assert said == f"job job had not begun; begin it with: {again}"
    Journal.open(folder).close()
    assert _server(tmp_path, monkeypatch, "--fresh") == said
    journal = begun(tmp_path / "job")
    end_round(journal, 1)
    assert _server(tmp_path, monkeypatch) == "job job is run by another server, which goes on"
    journal.close()
    assert _server(tmp_path, monkeypatch) == (
        f"job job is not over: {folder} keeps what it has, and its clients wait for its server. "
        f"Go on with: {again}"
    )
    journal = Journal.open(folder)
    journal.take_charge()
    journal.finish({})
    journal.close()
    assert _server(tmp_path, monkeypatch) == f"job job is over: what it left is in {folder}"


def test_a_client_says_what_becomes_of_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["flmq", "client", "app:client"])
    here = Path("state")
    again = "Go on with: flmq client app:client --client-id=a"
    assert "give --client-id a name that stays" in client._goes_on(None, WorkerOptions())
    for options in (WorkerOptions(), WorkerOptions(state_dir=here, ack=AckPolicy.RESULT)):
        said = client._goes_on("a", options)
        assert said.startswith(
            "a task that it has not done waits in its queue, and will be trained anew"
        )
        assert said.endswith(again)
    said = client._goes_on("a", WorkerOptions(state_dir=here))
    assert said == f"state keeps its tasks and what it has finished. {again}"


@pytest.mark.parametrize("begun_by", [[str(BIN / "flmq")], [sys.executable, "-P", "-m", "flmq"]])
def test_hiding_a_password_runs_nothing_of_the_current_folder(
    tmp_path: Path, begun_by: list[str]
) -> None:
    for name in ("rich", "typer", "pika", "flmq", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py was run')")
    url = f"amqp://user:{SECRET}@127.0.0.1:1/x"
    done = subprocess.run(
        [*begun_by, "client", "flmq.cli.demo.digits:client", "--broker", url],
        cwd=tmp_path,
        env=environment(""),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "was run" not in done.stderr
    assert SECRET not in done.stderr


def test_a_password_does_not_stay_in_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from pathlib import Path\n"
        "raise SystemExit(Path('/proc/self/cmdline').read_text().replace('\\0', ' '))"
    )
    url = f"amqp://user:{SECRET}@127.0.0.1:1/x"
    done = subprocess.run(
        [str(BIN / "flmq"), "client", "app:client", f"--broker={url}", "--once"],
        cwd=tmp_path,  # from here the app is loaded, as ever
        env=environment(""),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "flmq client app:client --once" in done.stderr
    assert SECRET not in done.stderr
