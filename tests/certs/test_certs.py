"""Certificates of one's own: what is in them, and that OpenSSL takes them at its strictest."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flmq.certs.authority import Authority, InvalidCertificateRequest, Signed, certificate_facts
from flmq.certs.folder import CertificateFiles, CertsFolder, FileStands

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> CertsFolder:
    made = CertsFolder(tmp_path / "certs")
    made.init("flmq test authority", 10)
    return made


def shake_hands(
    server: CertificateFiles, client: CertificateFiles, cafile: Path, host: str
) -> tuple[str, str]:
    """Do a handshake in memory; return the TLS version, and the client's name as the server saw."""
    sides = []
    for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH):
        context = ssl.create_default_context(purpose, cafile=str(cafile))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_REQUIRED
        files = client if purpose is ssl.Purpose.SERVER_AUTH else server
        context.load_cert_chain(files.certificate, files.key)
        sides.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = sides[0].wrap_bio(to_client, to_server, server_hostname=host)
    there = sides[1].wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (here, there):
            if side not in done:
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    pass
    assert len(done) == 2
    seen = there.getpeercert()
    assert seen is not None
    subject = dict(pair for each in seen["subject"] for pair in each)  # type: ignore[misc]
    return here.version() or "", subject["commonName"]


@pytest.mark.parametrize("host", ["broker.example", "127.0.0.1", "::1"])
@pytest.mark.parametrize("client", ["alice", "ward-3.clinic.example", "a" * 64])
def test_a_handshake_names_the_client(folder: CertsFolder, host: str, client: str) -> None:
    server = folder.server(["broker.example", "127.0.0.1", "::1"], 10)
    files = folder.client(client, 10)
    assert shake_hands(server, files, folder.authority.certificate, host) == ("TLSv1.3", client)


def test_a_certificate_is_for_its_hosts_alone(folder: CertsFolder) -> None:
    server, client = folder.server(["broker.example"], 10), folder.client("alice", 10)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(server, client, folder.authority.certificate, "other.example")


def test_neither_stands_in_for_the_other(folder: CertsFolder) -> None:
    server, client = folder.server(["broker.example"], 10), folder.client("broker.example", 10)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(client, client, folder.authority.certificate, "broker.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(server, server, folder.authority.certificate, "broker.example")


def test_what_they_say(folder: CertsFolder) -> None:
    files = folder.server(["broker.example", "10.0.0.7"], 30, now=NOW)
    facts = certificate_facts(files.certificate.read_bytes())
    assert (facts.name, facts.hosts) == ("broker.example", ("broker.example", "10.0.0.7"))
    assert facts.issuer == "flmq test authority"
    assert not facts.is_authority
    assert facts.ends == NOW + timedelta(days=30)
    assert facts.begins < NOW  # another machine's clock may be a little behind
    assert certificate_facts(folder.authority.certificate.read_bytes()).is_authority


def test_keys_are_their_owners_alone(folder: CertsFolder) -> None:
    made = (folder.authority, folder.server(["h"], 1), folder.client("alice", 1))
    for files in made:
        for path in (files.key, files.certificate):
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_is_overwritten_unless_asked_for(folder: CertsFolder) -> None:
    files = folder.client("alice", 1)
    before = files.key.read_bytes(), files.certificate.read_bytes()
    with pytest.raises(FileStands, match=r"alice\.key is there already: --force"):
        folder.client("alice", 1)
    with pytest.raises(FileStands):
        folder.init("another", 1)
    assert (files.key.read_bytes(), files.certificate.read_bytes()) == before
    folder.client("alice", 1, force=True)
    assert files.key.read_bytes() != before[0]


@pytest.mark.parametrize(
    ("name", "days", "says"),
    [
        ("", 1, "1 to 64"),
        ("a" * 65, 1, "1 to 64"),
        ("two\nlines", 1, "printable"),
        ("../alice", 1, "cannot name a file"),
        (".alice", 1, "cannot name a file"),
        ("alice", 0, "cannot be valid for 0 days"),
        ("alice", 10**9, "cannot be valid for"),
    ],
)
def test_what_cannot_be_made(folder: CertsFolder, name: str, days: int, says: str) -> None:
    with pytest.raises(InvalidCertificateRequest, match=says):
        folder.client(name, days)
    assert not (folder.path / "clients").exists()


@pytest.mark.parametrize("host", ["", "a b", "host:5671", "https://host", "-host"])
def test_what_is_no_host(folder: CertsFolder, host: str) -> None:
    with pytest.raises(InvalidCertificateRequest):
        folder.server([host], 1)


def test_without_an_authority_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidCertificateRequest, match="flmq certs init"):
        CertsFolder(tmp_path).client("alice", 1)


def test_an_authority_with_anothers_key_is_refused(folder: CertsFolder) -> None:
    own = Signed(folder.authority.certificate.read_bytes(), Authority.new("other", 1).signed.key)
    with pytest.raises(InvalidCertificateRequest, match="not that of its certificate"):
        Authority(own)
