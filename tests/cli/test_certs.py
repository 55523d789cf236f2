"""``flmq certs``: what it makes and shows, and what it says where it cannot."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flmq.certs.authority import InvalidCertificateRequest
from flmq.certs.folder import CertsFolder, FileStands
from flmq.cli.main import app
from flmq.e2e.errors import SecureExtraMissing


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["certs", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_made_is_shown() -> None:
    run("init", "--name", "our authority", "--days", "100")
    run("server", "broker.example", "10.0.0.7")
    run("client", "alice", "ward-3.clinic.example", "--days", "30")
    authority, server, alice, ward = run("show").splitlines()
    assert "authority 'our authority'" in authority
    assert "broker 'broker.example' for broker.example, 10.0.0.7, signed by 'our auth" in server
    assert "user 'alice'" in alice
    assert "(29 days)" in alice
    assert "user 'ward-3.clinic.example'" in ward


def test_what_is_out_of_its_time_is_shown_so() -> None:
    folder = CertsFolder(Path("certs"))
    folder.init("authority", 10)
    now = datetime.now(UTC)
    folder.client("old", 1, now=now - timedelta(days=5))
    folder.client("new", 1, now=now + timedelta(days=5))
    shown = run("show", "certs/clients/old.pem", "certs/clients/new.pem")
    assert "EXPIRED on " in shown
    assert "not valid before " in shown


def test_nothing_is_replaced_without_force() -> None:
    run("init")
    run("client", "alice")
    with pytest.raises(FileStands, match="--force"):
        run("client", "alice")
    run("client", "alice", "--force")


def test_what_is_no_certificate_is_named() -> None:
    Path("x.pem").write_text("no")
    with pytest.raises(InvalidCertificateRequest, match=r"x\.pem: it is no certificate"):
        run("show", "x.pem")
    with pytest.raises(InvalidCertificateRequest, match=r"y\.pem cannot be read"):
        run("show", "y.pem")


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flmq.certs.folder", "flmq.certs.authority"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(SecureExtraMissing, match=r"flmq\[secure\]"):
        run("init")
