"""Make certificates: an authority, and what it signs for brokers and clients (RFC 5280).

Keys are ECDSA over P-256, which every TLS 1.2 and 1.3 speaks; a handshake with them takes a
fraction of one with RSA. Nothing here touches files.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flmq.common.errors import UsageError

__all__ = [
    "Authority",
    "CertificateFacts",
    "InvalidCertificateRequest",
    "Signed",
    "certificate_facts",
]

_MAX_COMMON_NAME = 64
"""RFC 5280, appendix A: ub-common-name."""
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_CLOCKS_APART = timedelta(minutes=5)
"""How much another machine's clock may be behind, and the certificate is valid at once."""


class InvalidCertificateRequest(UsageError):
    """A certificate cannot be made as asked."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says."""

    name: str
    """Its common name, which is the user that a broker logs in."""
    hosts: tuple[str, ...]
    """The names and addresses of hosts that it stands for."""
    issuer: str
    """The common name of who signed it."""
    is_authority: bool
    begins: datetime
    ends: datetime


class Authority:
    """Who signs. Its key makes certificates that everybody who trusts it takes: keep it safe."""

    def __init__(self, signed: Signed) -> None:
        """Load it.

        Raises:
            InvalidCertificateRequest: it is no certificate of an authority with its key.
        """
        try:
            self._certificate = x509.load_pem_x509_certificate(signed.certificate)
            key = serialization.load_pem_private_key(signed.key, None)
        except (ValueError, TypeError) as error:
            raise InvalidCertificateRequest(
                f"the authority's certificate or key cannot be read ({error})"
            ) from error
        same = key.public_key() == self._certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not same:
            raise InvalidCertificateRequest("the authority's key is not that of its certificate")
        self._key = key
        self.signed = signed

    @classmethod
    def new(cls, name: str, days: int, now: datetime | None = None) -> Authority:
        """Make a new one called ``name``, valid for so many ``days`` from ``now``, in UTC.

        Raises:
            InvalidCertificateRequest: the name or the days cannot be.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        usage = _usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            _builder(subject, subject, key, days, now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(own, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(Signed(_pem(certificate), _private(key)))

    def server(self, hosts: Sequence[str], days: int, now: datetime | None = None) -> Signed:
        """Sign a certificate for a broker that is reached by the names or addresses ``hosts``.

        Raises:
            InvalidCertificateRequest: one is no name or address; or the days cannot be.
        """
        if not hosts:
            raise InvalidCertificateRequest("name the hosts that the certificate is for")
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return self._sign(hosts[0], days, now, ExtendedKeyUsageOID.SERVER_AUTH, names)

    def client(self, name: str, days: int, now: datetime | None = None) -> Signed:
        """Sign a certificate for the user ``name`` of a broker: a client's id, for one.

        Raises:
            InvalidCertificateRequest: the name or the days cannot be.
        """
        return self._sign(name, days, now, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _sign(
        self,
        name: str,
        days: int,
        now: datetime | None,
        purpose: x509.ObjectIdentifier,
        hosts: x509.SubjectAlternativeName | None,
    ) -> Signed:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._certificate
        theirs = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(_subject(name), issuer.subject, key, days, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(theirs),
                critical=False,
            )
        )
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
        return Signed(_pem(builder.sign(self._key, hashes.SHA256())), _private(key))


def certificate_facts(pem: bytes) -> CertificateFacts:
    """Return what the first certificate in ``pem`` says.

    Raises:
        InvalidCertificateRequest: there is none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        hosts = _hosts(certificate)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        is_authority = basic.ca
    except x509.ExtensionNotFound:
        is_authority = False
    except ValueError as error:
        raise InvalidCertificateRequest(f"it is no certificate in PEM ({error})") from error
    return CertificateFacts(
        name=_common_name(certificate.subject),
        hosts=hosts,
        issuer=_common_name(certificate.issuer),
        is_authority=is_authority,
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
    )


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)
    )


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _subject(name: str) -> x509.Name:
    if not 1 <= len(name) <= _MAX_COMMON_NAME or not name.isprintable() or name != name.strip():
        raise InvalidCertificateRequest(
            f"{name[:80]!r} cannot be a certificate's name: choose 1 to {_MAX_COMMON_NAME} "
            "printable characters"
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise InvalidCertificateRequest(
            f"{host[:80]!r} is no name or address of a host: write it as in the broker's URL, "
            "without its port"
        )
    return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    now: datetime | None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC) if now is None else now
    try:
        ends = now + timedelta(days=days)
        if days < 1:
            raise ValueError
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCKS_APART)
            .not_valid_after(ends)
        )
    except (ValueError, OverflowError) as error:
        raise InvalidCertificateRequest(
            f"a certificate cannot be valid for {days} days: give 1 or more, and an end before "
            "the year 9999"
        ) from error


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
