"""What is taken from ``cryptography``, and how what is signed or sealed becomes bytes.

Importing this module without the package raises `SecureExtraMissing`.
"""

from __future__ import annotations

from flmq.e2e.errors import Forged, SecureExtraMissing
from flmq.e2e.names import KEY_BYTES, SIGNATURE_BYTES

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as error:
    raise SecureExtraMissing(str(error)) from error

__all__ = [
    "AESGCM",
    "SEAL_OVERHEAD",
    "SIGNATURE_BYTES",
    "Ed25519PrivateKey",
    "Ed25519PublicKey",
    "InvalidTag",
    "X25519PrivateKey",
    "X25519PublicKey",
    "check_sealing_key",
    "derive",
    "framed",
    "open_sealed",
    "seal",
    "sign",
    "verify",
]

SEAL_OVERHEAD = 32 + 16
"""Bytes by which a sealed message is longer: the encapsulated key and the tag."""
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_VERSION = b"flmq e2e 1 "


def framed(domain: str, *parts: bytes | str) -> bytes:
    """Return ``domain`` and ``parts`` as bytes that no other domain or parts have.

    Each has its length before it, eight bytes big-endian, and the first is the domain's word: a
    signature made for one purpose is worth nothing for another.
    """
    pieces: list[bytes] = []
    for part in (_VERSION + domain.encode(), *parts):
        data = part.encode() if isinstance(part, str) else part
        pieces += (len(data).to_bytes(8, "big"), data)
    return b"".join(pieces)


def sign(key: Ed25519PrivateKey, message: bytes) -> bytes:
    """Sign ``message``, which `framed` made (Ed25519, RFC 8032)."""
    return key.sign(message)


def verify(key: Ed25519PublicKey, signature: bytes, message: bytes, what: str) -> None:
    """Check a signature.

    Raises:
        Forged: it is not of this key over this message; names ``what`` was signed.
    """
    try:
        key.verify(signature, message)
    except InvalidSignature:
        raise Forged(f"{what} does not have the signature of its sender") from None


def check_sealing_key(key: bytes) -> None:
    """Check that messages can be sealed to an X25519 public key.

    Raises:
        ValueError: it has another length, or is one of those few with which there is no secret
            (RFC 7748, section 6.1): sealing to it would fail later.
    """
    X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))


def seal(key: X25519PublicKey, plain: bytes, info: bytes) -> bytes:
    """Encrypt ``plain`` so that only the holder of ``key`` reads it (HPKE, RFC 9180, base mode).

    ``info``, which `framed` made, is not sent: who opens it must know the same.
    """
    return _SUITE.encrypt(plain, key, info)


def open_sealed(key: X25519PrivateKey, sealed: bytes, info: bytes, what: str) -> bytes:
    """Decrypt what `seal` made.

    Raises:
        Forged: it is not for this key, or not with this ``info``; names ``what`` it is.
    """
    if len(sealed) < SEAL_OVERHEAD:
        raise Forged(f"{what} of {len(sealed)} bytes is too short to be sealed")
    try:
        return _SUITE.decrypt(sealed, key, info)
    except (InvalidTag, ValueError):
        # ValueError: an encapsulated key of low order, with which there is no secret.
        raise Forged(f"{what} is not sealed to this key, or was changed") from None


def derive(secret: bytes, info: bytes) -> bytes:
    """Return a key made of ``secret`` for the purpose ``info`` (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)
