"""Identities: the keys of a client or of a job's server, their files, and who is trusted.

An identity is a name with two keys: Ed25519 to sign with, X25519 to be sealed to. Its public half
is signed with its own signing key, so that nobody can pair another's signing key with a sealing key
of his own. A file is one line of JSON, so that ``cat keys/*.pub > trusted.pub`` makes one of many.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flmq.common.errors import InvalidClientId
from flmq.common.files import create_private, make_folder
from flmq.common.names import check_client_id
from flmq.e2e.errors import Forged, InvalidKey, KeyNotPrivate
from flmq.e2e.names import KEY_BYTES
from flmq.e2e.primitives import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
    X25519PrivateKey,
    X25519PublicKey,
    check_sealing_key,
    derive,
    framed,
    sign,
    verify,
)

__all__ = [
    "PRIVATE",
    "PUBLIC",
    "Identity",
    "PublicIdentity",
    "load_identities",
    "load_identity",
    "load_public",
    "roster_digest",
    "save_identity",
]

PRIVATE, PUBLIC = ".key", ".pub"
"""Suffixes of the two files of an identity."""
_PRIVATE_FORM, _PUBLIC_FORM = "flmq private key 1", "flmq public key 1"
_LONGEST_LINE = 4096


@dataclass(frozen=True)
class PublicIdentity:
    """What everybody may know of an identity; made by `Identity.public` or read from a file."""

    name: str
    """A client's id, or how a server is called."""
    signing: bytes
    """Ed25519 public key, 32 bytes."""
    sealing: bytes
    """X25519 public key, 32 bytes."""
    proof: bytes
    """Signature of all that with the signing key, 64 bytes."""

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            InvalidKey: the name or a key is not valid, or the proof does not fit.
        """
        try:
            check_client_id(self.name)
            key = Ed25519PublicKey.from_public_bytes(self.signing)
            check_sealing_key(self.sealing)
            verify(key, self.proof, _proven(self.name, self.signing, self.sealing), "a public key")
        except (InvalidClientId, Forged, ValueError) as error:
            raise InvalidKey(
                f"the public key of {self.name[:80]!r} is not valid: {error}"
            ) from error

    @cached_property
    def verifier(self) -> Ed25519PublicKey:
        """The key that checks its signatures."""
        return Ed25519PublicKey.from_public_bytes(self.signing)

    @cached_property
    def sealer(self) -> X25519PublicKey:
        """The key that messages to it are sealed to."""
        return X25519PublicKey.from_public_bytes(self.sealing)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both keys, without the name: 64 hexadecimal digits in groups of four."""
        digest = hashlib.sha256(framed("fingerprint", self.signing, self.sealing)).hexdigest()
        return " ".join(digest[at : at + 4] for at in range(0, len(digest), 4))

    def line(self) -> str:
        """Return the content of its file: one line of JSON."""
        return _line(
            _PUBLIC_FORM, self.name, sign=self.signing, seal=self.sealing, proof=self.proof
        )


@dataclass(frozen=True)
class Identity:
    """A name with its private keys. Its text never shows them."""

    name: str
    signing: bytes = field(repr=False)
    """Ed25519 private key, 32 bytes."""
    sealing: bytes = field(repr=False)
    """X25519 private key, 32 bytes."""

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            InvalidKey: the name or a key is not valid.
        """
        try:
            check_client_id(self.name)
        except InvalidClientId as error:
            raise InvalidKey(f"a key's name is a client id: {error}") from error
        if len(self.signing) != KEY_BYTES or len(self.sealing) != KEY_BYTES:
            raise InvalidKey(f"the private key of {self.name!r} is not {KEY_BYTES} bytes long")

    @classmethod
    def new(cls, name: str) -> Identity:
        """Draw new keys for ``name``.

        Raises:
            InvalidKey: the name is not valid as a client id.
        """
        return cls(
            name,
            Ed25519PrivateKey.generate().private_bytes_raw(),
            X25519PrivateKey.generate().private_bytes_raw(),
        )

    @cached_property
    def signer(self) -> Ed25519PrivateKey:
        """The key it signs with."""
        return Ed25519PrivateKey.from_private_bytes(self.signing)

    @cached_property
    def opener(self) -> X25519PrivateKey:
        """The key that opens what is sealed to it."""
        return X25519PrivateKey.from_private_bytes(self.sealing)

    @cached_property
    def secret(self) -> bytes:
        """A secret of this identity to derive content keys from, unlike its other keys."""
        return derive(self.sealing, framed("identity secret", self.name))

    @cached_property
    def public(self) -> PublicIdentity:
        """Its public half."""
        signing = self.signer.public_key().public_bytes_raw()
        sealing = self.opener.public_key().public_bytes_raw()
        proof = sign(self.signer, _proven(self.name, signing, sealing))
        return PublicIdentity(self.name, signing, sealing, proof)

    def line(self) -> str:
        """Return the content of its private file: one line of JSON."""
        return _line(_PRIVATE_FORM, self.name, sign=self.signing, seal=self.sealing)


def roster_digest(clients: Iterable[PublicIdentity]) -> bytes:
    """Return the digest (SHA-256) of a set of clients with their keys, whatever their order."""
    each = sorted((one.name, one.signing, one.sealing) for one in clients)
    digest = hashlib.sha256(framed("roster"))
    for name, signing, sealing in each:
        digest.update(framed("in roster", name, signing, sealing))
    return digest.digest()


def save_identity(identity: Identity, folder: Path) -> tuple[Path, Path]:
    """Write ``NAME.key``, for the owner alone, and ``NAME.pub`` to ``folder``; return their paths.

    Raises:
        InvalidKey: there is a key of that name: it is never replaced.
        OSError: a file cannot be written.
    """
    make_folder(folder)
    private, public = (folder / f"{identity.name}{suffix}" for suffix in (PRIVATE, PUBLIC))
    try:
        with create_private(private) as file:
            file.write(identity.line().encode())
    except FileExistsError:
        raise InvalidKey(
            f"there is a key {private} already: it is not replaced; choose another name or folder"
        ) from None
    public.write_text(identity.public.line(), encoding="utf-8")
    return private, public


def load_identity(path: Path) -> Identity:
    """Read the one private key at ``path``.

    Raises:
        InvalidKey: there is none, or it is no private key.
        KeyNotPrivate: others may read it.
    """
    lines = list(_lines(path, private=True))
    if len(lines) != 1:
        raise InvalidKey(f"{path} holds {len(lines)} keys: name the file of one private key")
    return _identity_of(lines[0], path)


def load_identities(path: Path) -> dict[str, Identity]:
    """Read private keys by name: the file at ``path``, or all ``*.key`` of the folder there.

    Raises:
        InvalidKey: there is none, two have one name, or a file is no private key.
        KeyNotPrivate: others may read one.
    """
    found: dict[str, Identity] = {}
    for file in _files(path, PRIVATE):
        for line in _lines(file, private=True):
            _add(found, _identity_of(line, file), file)
    return _some(found, path, "private")


def load_public(path: Path) -> dict[str, PublicIdentity]:
    """Read public keys by name: the file at ``path``, or all ``*.pub`` of the folder there.

    Raises:
        InvalidKey: there is none, two have one name, or a file is no public key.
    """
    found: dict[str, PublicIdentity] = {}
    for file in _files(path, PUBLIC):
        for line in _lines(file, private=False):
            if line.get("form") == _PRIVATE_FORM:
                raise InvalidKey(
                    f"{file} is a private key: give the {PUBLIC} file, and keep this one to its "
                    "owner"
                )
            if line.get("form") != _PUBLIC_FORM:
                raise InvalidKey(f"{file} is no public key of flmq: `flmq keys new NAME` makes one")
            one = PublicIdentity(
                _text(line, "name", file),
                _bytes(line, "sign", file),
                _bytes(line, "seal", file),
                _bytes(line, "proof", file),
            )
            _add(found, one, file)
    return _some(found, path, "public")


def _proven(name: str, signing: bytes, sealing: bytes) -> bytes:
    return framed("public key", name, signing, sealing)


def _line(form: str, name: str, **keys: bytes) -> str:
    encoded = {key: base64.b64encode(value).decode() for key, value in keys.items()}
    return json.dumps({"form": form, "name": name, **encoded}) + "\n"


def _identity_of(line: Mapping[str, Any], file: Path) -> Identity:
    if line.get("form") == _PUBLIC_FORM:
        raise InvalidKey(f"{file} is a public key: give the {PRIVATE} file beside it")
    if line.get("form") != _PRIVATE_FORM:
        raise InvalidKey(f"{file} is no private key of flmq: `flmq keys new NAME` makes one")
    return Identity(
        _text(line, "name", file), _bytes(line, "sign", file), _bytes(line, "seal", file)
    )


def _files(path: Path, suffix: str) -> list[Path]:
    return sorted(path.glob(f"*{suffix}")) if path.is_dir() else [path]


def _lines(path: Path, *, private: bool) -> Iterator[Mapping[str, Any]]:
    try:
        if private:
            _check_private(path)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidKey(f"the key {path} cannot be read: {error}") from error
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            if len(line) > _LONGEST_LINE:
                raise ValueError(f"a line of {len(line)} characters")
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("it is no object")
        except (ValueError, RecursionError) as error:
            raise InvalidKey(f"{path} is no key of flmq: {error}") from error
        yield value


def _check_private(path: Path) -> None:
    if os.name == "nt":
        return  # it is as private as its folder
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyNotPrivate(
            f"the private key {path} may be read by others (mode {stat.S_IMODE(mode):o}): "
            f"chmod 600 {path}"
        )


def _text(line: Mapping[str, Any], name: str, file: Path) -> str:
    value = line.get(name)
    if not isinstance(value, str):
        raise InvalidKey(f"{file} is no key of flmq: {name!r} is missing")
    return value


def _bytes(line: Mapping[str, Any], name: str, file: Path) -> bytes:
    try:
        return base64.b64decode(_text(line, name, file), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidKey(f"{file} is no key of flmq: {name!r} is not base64") from error


def _add(found: dict[str, Any], one: Any, file: Path) -> None:
    if found.setdefault(one.name, one) != one:
        raise InvalidKey(f"{file} holds a second key of {one.name!r}: a name has one key")


def _some(found: dict[str, Any], path: Path, kind: str) -> dict[str, Any]:
    if not found:
        suffix = PRIVATE if kind == "private" else PUBLIC
        raise InvalidKey(f"there is no {kind} key (*{suffix}) in {path}: `flmq keys new` makes one")
    return found
