"""How a process logs in: from where, what contradicts what, and that no secret is ever shown."""

from __future__ import annotations

import base64
import json
import sys
import traceback
from pathlib import Path

import pytest

from flmq.certs.folder import CertsFolder
from flmq.common import credentials
from flmq.common.credentials import (
    AmbiguousLogin,
    CredentialsUnavailable,
    Login,
    check_login,
    login_of,
    user_of,
)
from flmq.common.errors import FlmqError
from flmq.common.urls import InvalidBrokerUrl, parse_broker_url, redact_url

SECRET = "open-sesame-42"


def token(claims: object) -> str:
    """A token with ``claims``, as a JSON Web Token has them; its signature is none."""
    parts = ({"alg": "RS256"}, claims)
    coded = [
        base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts
    ]
    return ".".join((*coded, "c2ln"))


def read(url: str, environ: dict[str, str] | None = None) -> Login:
    return login_of(parse_broker_url(url), environ or {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


def command(program: str) -> str:
    """A command that runs a line of Python, as it is written into a URL."""
    return f"{sys.executable} -c {program!r}".replace(" ", "%20").replace("'", "%27")


def test_a_password_of_the_url(file: Path) -> None:
    assert read("amqp://alice:abc@h") == Login("alice", "abc")
    assert read("amqp://h") == Login("guest", "guest")


def test_a_password_of_a_file_a_command_and_the_environment(file: Path) -> None:
    wanted = Login("alice", SECRET)
    printing = command(f'print("{SECRET}")')
    assert read(f"amqp://alice@h?password_file={file}") == wanted
    assert read(f"amqp://alice@h?password_command={printing}") == wanted
    assert read("amqp://alice@h", {"FLMQ_BROKER_PASSWORD": SECRET}) == wanted
    assert read("amqp://alice@h", {"FLMQ_BROKER_PASSWORD_FILE": str(file)}) == wanted
    by_command = {"FLMQ_BROKER_PASSWORD_COMMAND": f"cat {file}"}
    assert read("amqp://alice@h", by_command) == wanted


def test_the_urls_own_word_counts_before_the_environments(file: Path) -> None:
    environ = {"FLMQ_BROKER_PASSWORD": "other"}
    assert read("amqp://alice:abc@h", environ).secret == "abc"
    assert read(f"amqp://alice@h?password_file={file}", environ).secret == SECRET


def test_it_is_read_again_each_time(file: Path) -> None:
    url = f"amqp://alice@h?password_file={file}"
    assert read(url).secret == SECRET
    file.write_text("rotated")
    assert read(url).secret == "rotated"


def test_a_token_says_who_and_until_when(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for claims, user, expires in (
        ({"sub": "alice", "exp": 1_800_000_000}, "alice", 1_800_000_000.0),
        ({"sub": "alice"}, "alice", None),
        ({"exp": True}, "guest", None),
        ({"exp": 1e300}, "guest", None),
        ([1], "guest", None),
    ):
        file.write_text(token(claims))
        login = read(f"amqps://h?token_file={file}")
        assert (login.user, login.expires, login.secret) == (user, expires, token(claims))
        assert user_of(parse_broker_url(f"amqps://h?token_file={file}"), {}) == user
    file.write_text("opaque")
    assert read(f"amqps://bob@h?token_file={file}") == Login("bob", "opaque")


def test_a_certificate_names_its_user(tmp_path: Path) -> None:
    folder = CertsFolder(tmp_path)
    folder.init("authority", 1)
    files = folder.client("ward-3.clinic.example", 1)
    rest = f"h?auth=external&certfile={files.certificate}&keyfile={files.key}"
    login = read(f"amqps://{rest}")
    assert login == Login("ward-3.clinic.example", "", external=True)
    assert user_of(parse_broker_url(f"amqps://{rest}"), {}) == "ward-3.clinic.example"
    assert read(f"amqps://ward-3.clinic.example@{rest}") == login
    with pytest.raises(InvalidBrokerUrl, match=r"is that of 'ward-3.*not of 'bob'"):
        read(f"amqps://bob@{rest}")
    assert "guest" not in redact_url(f"amqps://{rest}")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqp://alice@h", "user 'alice' has no password: set FLMQ_BROKER_PASSWORD"),
        (
            "amqp://alice:x@h?password_file=f",
            "more than one way to log in: password and",
        ),
        ("amqp://a@h?password_file=f&token_file=t", "more than one way"),
        ("amqp://a@h?password_file=f&password_file=g", "'password_file' is given twice"),
        ("amqp://a@h?password=x", "stands before the host"),
        ("amqp://a@h?auth=external", "must begin with amqps"),
        ("amqps://a@h?auth=external", "needs the client's certificate: add certfile="),
        ("amqps://a@h?auth=plain&certfile=c", "knows one word, external"),
        ("amqps://a:b@h?auth=external&certfile=c", "more than one way"),
    ],
)
def test_what_contradicts_itself(url: str, says: str) -> None:
    with pytest.raises(InvalidBrokerUrl, match=says):
        check_login(parse_broker_url(url), {})


def test_an_environment_that_contradicts_itself() -> None:
    environ = {"FLMQ_BROKER_PASSWORD": "x", "FLMQ_BROKER_TOKEN_FILE": "y"}
    both = "FLMQ_BROKER_PASSWORD and FLMQ_BROKER_TOKEN_FILE are set at once"
    with pytest.raises(AmbiguousLogin, match=both):
        check_login(parse_broker_url("amqp://alice@h"), environ)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"\n\n", "is empty"), (b"a\nb\n", "more than one line"),
     (b"x" * 70_000, "more than"), (b"\xff", "not UTF-8")],
)  # fmt: skip
def test_a_file_that_holds_no_secret(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(CredentialsUnavailable, match=says):
        read(f"amqp://alice@h?password_file={file}")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(CredentialsUnavailable, match=r"/no/such \(No such file"):
        read("amqp://alice@h?password_file=/no/such")
    with pytest.raises(CredentialsUnavailable, match=r"certificate cannot be read from /no/such"):
        read("amqps://alice@h?auth=external&certfile=/no/such")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (f'print("{SECRET}"); raise SystemExit("vault is sealed")', "status 1: vault is sealed"),
        ("pass", "is empty"),
        (f'print("{SECRET}" * 9000)', "more than"),
        (f'import time; print("{SECRET}", flush=True); time.sleep(9)', "nothing within 0.3 s"),
        (f'while True: print("{SECRET}" * 999)', "more than"),
        (f'while True: print("{SECRET}" * 999, file=__import__("sys").stderr)', "within 0.3 s"),
        ("import subprocess; subprocess.Popen(['sleep', '9'])", "nothing within 0.3 s"),
    ],
)
def test_a_command_that_gives_none(
    monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    if "0.3 s" in says:
        monkeypatch.setattr(credentials, "COMMAND_SECONDS", 0.3)
    with pytest.raises(CredentialsUnavailable, match=says) as caught:
        read(f"amqp://alice@h?password_command={command(program)}")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_command_that_cannot_be_run() -> None:
    with pytest.raises(CredentialsUnavailable, match="/no/such, cannot be run"):
        read("amqp://alice@h?password_command=/no/such%20x")
    with pytest.raises(CredentialsUnavailable, match="split into words"):
        read("amqp://alice@h?password_command='")


def test_no_secret_is_shown(file: Path) -> None:
    login = read(f"amqp://alice@h?password_file={file}")
    url = parse_broker_url(f"amqp://alice@h?password_command=echo%20{SECRET}")
    for shown in (repr(login), str(login), repr(url), str(url), redact_url(url.full)):
        assert SECRET not in shown
    with pytest.raises(FlmqError) as caught:
        check_login(parse_broker_url(f"amqp://alice@h?password_command={SECRET}&auth=x"), {})
    assert SECRET not in str(caught.value)
