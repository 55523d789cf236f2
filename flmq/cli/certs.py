"""``flmq certs``: certificates for a broker and its clients, from an authority of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flmq.cli.commands import Commands
from flmq.e2e.errors import SecureExtraMissing

if TYPE_CHECKING:
    from flmq.certs.authority import CertificateFacts
    from flmq.certs.folder import CertificateFiles, CertsFolder

__all__ = ["DAYS", "DAYS_OF_AUTHORITY", "certs_app", "certs_folder"]

certs_app = typer.Typer(
    cls=Commands,
    help="Certificates for TLS and logins, from an authority of your own.",
    no_args_is_help=True,
)

DAYS_OF_AUTHORITY, DAYS = 3650, 365
"""For how many days certificates are valid, unless said otherwise."""


_Folder = Annotated[
    Path, typer.Option("--dir", envvar="FLMQ_CERTS", help="The folder of the certificates.")
]
_FOLDER = Path("certs")
_Days = Annotated[int, typer.Option(help="For how many days it is valid.", min=1)]
_Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def certs_folder(path: Path) -> CertsFolder:
    """Return the folder of certificates at ``path``.

    Raises:
        SecureExtraMissing: nothing here can make or read certificates.
    """
    try:
        from flmq.certs.folder import CertsFolder
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise SecureExtraMissing(str(error)) from None
    return CertsFolder(path)


@certs_app.command()
def init(
    folder: _Folder = _FOLDER,
    name: Annotated[str, typer.Option(help="What the authority is called.")] = "flmq authority",
    days: _Days = DAYS_OF_AUTHORITY,
    force: _Force = False,
) -> None:
    """Make an authority: who trusts its ca.pem, trusts what it signs. Keep its ca.key safe."""
    _tell(certs_folder(folder).init(name, days, force=force))


@certs_app.command()
def server(
    hosts: Annotated[
        list[str], typer.Argument(help="Names and addresses by which clients reach the broker.")
    ],
    folder: _Folder = _FOLDER,
    days: _Days = DAYS,
    force: _Force = False,
) -> None:
    """Make a certificate for a broker."""
    _tell(certs_folder(folder).server(hosts, days, force=force))


@certs_app.command()
def client(
    names: Annotated[
        list[str], typer.Argument(help="The users who log in by them: ids of clients, for one.")
    ],
    folder: _Folder = _FOLDER,
    days: _Days = DAYS,
    force: _Force = False,
) -> None:
    """Make a certificate each for clients, servers and other users of a broker."""
    there = certs_folder(folder)
    for name in names:
        _tell(there.client(name, days, force=force))


@certs_app.command()
def show(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Certificates. Default: all in the folder.")
    ] = None,
    folder: _Folder = _FOLDER,
) -> None:
    """Show whom certificates are for, who signed them, and until when they are valid."""
    for line in _shown(files or certs_folder(folder).certificates()):
        typer.echo(line)


def _tell(files: CertificateFiles) -> None:
    typer.echo(f"{files.certificate}  (key: {files.key})")


def _shown(files: Iterable[Path]) -> Iterable[str]:
    certs_folder(_FOLDER)  # says what is missing
    from flmq.certs.authority import InvalidCertificateRequest, certificate_facts

    now = datetime.now(UTC)
    for path in files:
        try:
            facts = certificate_facts(path.read_bytes())
        except OSError as error:
            raise InvalidCertificateRequest(f"{path} cannot be read ({error})") from error
        except InvalidCertificateRequest as error:
            raise InvalidCertificateRequest(f"{path}: {error}") from error
        yield f"{path}: {_said(facts, now)}"


def _said(facts: CertificateFacts, now: datetime) -> str:
    kind = "authority" if facts.is_authority else "broker" if facts.hosts else "user"
    hosts = f" for {', '.join(facts.hosts)}" if facts.hosts else ""
    left = (facts.ends - now).days
    if facts.ends <= now:
        state = f"EXPIRED on {facts.ends:%Y-%m-%d}"
    elif facts.begins > now:
        state = f"not valid before {facts.begins:%Y-%m-%d %H:%M} UTC"
    else:
        state = f"valid until {facts.ends:%Y-%m-%d} ({left} days)"
    return f"{kind} {facts.name!r}{hosts}, signed by {facts.issuer!r}, {state}"
