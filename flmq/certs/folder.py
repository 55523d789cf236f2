"""Certificates as files: ``ca.pem`` and ``ca.key``, and below them ``servers/`` and ``clients/``.

Keys are readable by their owner alone, and so are certificates, which need not be. Nothing is
overwritten unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flmq.certs.authority import Authority, InvalidCertificateRequest, Signed
from flmq.common.files import replacing

__all__ = ["CertificateFiles", "CertsFolder", "FileStands"]


class FileStands(InvalidCertificateRequest):
    """A file that would be written is there already."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self.path = path
        super().__init__(f"{path} is there already: --force replaces it")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The files of one certificate."""

    certificate: Path
    key: Path


class CertsFolder:
    """A folder of certificates under one authority."""

    def __init__(self, path: Path) -> None:
        """Use the folder ``path``; nothing is read or written yet."""
        self.path = path

    @property
    def authority(self) -> CertificateFiles:
        """The authority's files: the certificate is what others trust (``?cafile=``)."""
        return CertificateFiles(self.path / "ca.pem", self.path / "ca.key")

    def init(
        self, name: str, days: int, *, force: bool = False, now: datetime | None = None
    ) -> CertificateFiles:
        """Make an authority. With ``force`` it replaces the one that is there.

        Raises:
            FileStands: there is one.
            InvalidCertificateRequest: it cannot be made so, or not be written.
        """
        files = self.authority
        _write(files, Authority.new(name, days, now).signed, force)
        return files

    def server(
        self, hosts: Sequence[str], days: int, *, force: bool = False, now: datetime | None = None
    ) -> CertificateFiles:
        """Make a broker's certificate, named after the first of ``hosts``; see `Authority.server`.

        Raises:
            FileStands: there is one of that name.
            InvalidCertificateRequest: it cannot be made so; there is no authority yet.
        """
        signed = self._load().server(hosts, days, now)
        files = self.files_of_server(hosts[0])
        _write(files, signed, force)
        return files

    def client(
        self, name: str, days: int, *, force: bool = False, now: datetime | None = None
    ) -> CertificateFiles:
        """Make the certificate of the user ``name``.

        Raises:
            FileStands: there is one of that name.
            InvalidCertificateRequest: it cannot be made so; there is no authority yet.
        """
        signed = self._load().client(name, days, now)
        if "/" in name or "\\" in name or name.startswith("."):
            raise InvalidCertificateRequest(f"{name!r} cannot name a file: choose another name")
        files = self.files_of_client(name)
        _write(files, signed, force)
        return files

    def files_of_server(self, host: str) -> CertificateFiles:
        """Return the files of the broker whose first name is ``host``, made or not."""
        return self._files("servers", host.replace("*", "_").replace(":", "_"))

    def files_of_client(self, name: str) -> CertificateFiles:
        """Return the files of the user ``name``, made or not."""
        return self._files("clients", name)

    def certificates(self) -> list[Path]:
        """Return the files of all certificates here, the authority's first."""
        found = [self.authority.certificate]
        for folder in ("servers", "clients"):
            found += sorted((self.path / folder).glob("*.pem"))
        return [path for path in found if path.exists()]

    def _files(self, folder: str, name: str) -> CertificateFiles:
        return CertificateFiles(
            self.path / folder / f"{name}.pem", self.path / folder / f"{name}.key"
        )

    def _load(self) -> Authority:
        files = self.authority
        try:
            return Authority(Signed(files.certificate.read_bytes(), files.key.read_bytes()))
        except OSError as error:
            raise InvalidCertificateRequest(
                f"there is no authority in {self.path} ({error}): make one first, flmq certs init"
            ) from error


def _write(files: CertificateFiles, signed: Signed, force: bool) -> None:
    for path in (files.key, files.certificate):
        if path.exists() and not force:
            raise FileStands(path)
    try:
        for path, content in ((files.key, signed.key), (files.certificate, signed.certificate)):
            with replacing(path) as file:
                file.write(content)
    except OSError as error:
        raise InvalidCertificateRequest(f"{path} cannot be written ({error})") from error
