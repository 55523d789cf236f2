"""The manifest of a job: which keys speak for its server, signed by the authority that clients pin.

An *authority* is a server's identity (`flmq.e2e.keys`). Its key signs the manifest of each run and
nothing else; what is said in the run is signed with the keys of the run's *session*. A client takes
nothing of a job that has no manifest of an authority it pinned. The manifest travels with every
message of the server, some 300 bytes, so that no message depends on another that may be lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from flmq.common.errors import InvalidJobName
from flmq.common.names import check_job_name
from flmq.e2e.chunks import content_key
from flmq.e2e.errors import Forged, ManifestExpired, UnknownKey
from flmq.e2e.keys import Identity, PublicIdentity
from flmq.e2e.names import KEY_BYTES, MAX_MANIFEST_BYTES
from flmq.e2e.primitives import (
    SIGNATURE_BYTES,
    Ed25519PrivateKey,
    Ed25519PublicKey,
    X25519PrivateKey,
    X25519PublicKey,
    check_sealing_key,
    framed,
    sign,
    verify,
)

__all__ = ["LIFETIME", "SKEW", "Manifest", "Session"]

LIFETIME = 30 * 24 * 3600.0
"""Seconds for which a manifest is valid; a server that runs longer, or resumes, signs a new one."""
SKEW = 300.0
"""Seconds by which the clocks of a server and a client may differ."""
_FIELDS = 8
_DOMAIN = "manifest"


@dataclass(frozen=True)
class Session:
    """The secrets of one run of a job, the same in each of its servers (`flmq.server.secure`)."""

    signing: bytes = field(repr=False)
    """Ed25519 private key, 32 bytes."""
    sealing: bytes = field(repr=False)
    """X25519 private key, 32 bytes."""
    secret: bytes = field(repr=False)
    """32 bytes that the keys of published models are derived from."""

    @classmethod
    def new(cls) -> Session:
        """Draw secrets that nobody else has."""
        return cls(
            Ed25519PrivateKey.generate().private_bytes_raw(),
            X25519PrivateKey.generate().private_bytes_raw(),
            secrets.token_bytes(KEY_BYTES),
        )

    @cached_property
    def signer(self) -> Ed25519PrivateKey:
        """The key the server signs with."""
        return Ed25519PrivateKey.from_private_bytes(self.signing)

    @cached_property
    def opener(self) -> X25519PrivateKey:
        """The key that opens what is sealed to the job."""
        return X25519PrivateKey.from_private_bytes(self.sealing)

    def model_key(self, digest: str, chunk_bytes: int) -> bytes:
        """Return the content key of a model that the job publishes or sends."""
        return content_key(self.secret, "model", digest, chunk_bytes)


@dataclass(frozen=True)
class Manifest:
    """Which keys speak for a job in one run of it, from when until when."""

    job: str
    run: str
    authority: str
    """Name of the identity that signed it."""
    signing: bytes
    """The session's Ed25519 public key."""
    sealing: bytes
    """The session's X25519 public key."""
    roster: bytes
    """Digest of the clients that the server trusts: `flmq.e2e.keys.roster_digest`."""
    issued_unix_ms: int
    expires_unix_ms: int
    encoded: bytes = field(repr=False)
    """What travels: the signature, and what it is over."""

    @classmethod
    def issue(
        cls,
        authority: Identity,
        job: str,
        run: str,
        session: Session,
        roster: bytes,
        now: float,
        lifetime: float = LIFETIME,
    ) -> Manifest:
        """Sign the manifest of a run. ``now`` is in Unix seconds, ``lifetime`` in seconds."""
        issued, expires = int(now * 1000), int((now + lifetime) * 1000)
        signing = session.signer.public_key().public_bytes_raw()
        sealing = session.opener.public_key().public_bytes_raw()
        body = framed(
            _DOMAIN,
            job,
            run,
            authority.name,
            signing,
            sealing,
            roster,
            issued.to_bytes(8, "big"),
            expires.to_bytes(8, "big"),
        )
        encoded = sign(authority.signer, body) + body
        return cls(job, run, authority.name, signing, sealing, roster, issued, expires, encoded)

    @classmethod
    def read(cls, encoded: bytes, authorities: Iterable[PublicIdentity]) -> Manifest:
        """Read a manifest that one of ``authorities`` signed. Its times are checked by `check`.

        Raises:
            UnknownKey: none of them did.
            Forged: it is no manifest.
        """
        body, parts = encoded[SIGNATURE_BYTES:], _parts(encoded)
        job, run, name = (part.decode() for part in parts[:3])
        what = f"the manifest of job {job!r}"
        signature = encoded[:SIGNATURE_BYTES]
        for authority in authorities:
            if authority.name != name:
                continue
            verify(authority.verifier, signature, body, what)
            signing, sealing, roster = parts[3:6]
            try:
                check_sealing_key(sealing)
            except ValueError as error:
                raise Forged(f"{what} has a key to seal to that is none: {error}") from error
            issued, expires = (int.from_bytes(part, "big") for part in parts[6:])
            return cls(job, run, name, signing, sealing, roster, issued, expires, encoded)
        raise UnknownKey(
            job,
            f"job {job!r} is run by {name!r}, whose key is not pinned here: if it is to be "
            f"trusted, get its public key from whoever runs it, and give it with --server-key",
        )

    def check(self, now: float) -> None:
        """Check that it is valid at ``now``, in Unix seconds.

        Raises:
            ManifestExpired: it is over, or is not yet valid.
        """
        if now * 1000 < self.issued_unix_ms - SKEW * 1000:
            ahead = self.issued_unix_ms / 1000 - now
            raise ManifestExpired(
                self.job,
                f"the manifest of job {self.job!r} begins {ahead:.0f} s from now: set the clocks "
                "of this machine and the server's right",
            )
        if now * 1000 > self.expires_unix_ms + SKEW * 1000:
            over = now - self.expires_unix_ms / 1000
            raise ManifestExpired(
                self.job,
                f"the manifest of job {self.job!r} ended {over:.0f} s ago: its server must be "
                "started again, which signs a new one; or this machine's clock is wrong",
            )

    @cached_property
    def verifier(self) -> Ed25519PublicKey:
        """The key that checks what the server says in this run."""
        return Ed25519PublicKey.from_public_bytes(self.signing)

    @cached_property
    def sealer(self) -> X25519PublicKey:
        """The key that messages to the server are sealed to."""
        return X25519PublicKey.from_public_bytes(self.sealing)


def _parts(encoded: bytes) -> list[bytes]:
    """Return the fields of a manifest, checked in form: anybody may have sent it.

    Raises:
        Forged: it is no manifest.
    """
    if not SIGNATURE_BYTES < len(encoded) <= MAX_MANIFEST_BYTES:
        raise Forged(f"a manifest of {len(encoded)} bytes: at most {MAX_MANIFEST_BYTES}")
    body = encoded[SIGNATURE_BYTES:]
    parts, at = [], 0
    while at < len(body):
        end = at + 8 + int.from_bytes(body[at : at + 8], "big")
        parts.append(body[at + 8 : end])
        at = end
    try:
        # Made again it must be the same: one manifest has one form.
        same = len(parts) == 1 + _FIELDS and framed(_DOMAIN, *parts[1:]) == body
        sizes = [len(part) for part in parts[4:]]
        if not same or sizes != [KEY_BYTES, KEY_BYTES, KEY_BYTES, 8, 8]:
            raise ValueError("its fields are not those of one")
        check_job_name(parts[1].decode())
        check_job_name(parts[2].decode())  # a run's name has the same alphabet
        parts[3].decode()
    except (ValueError, InvalidJobName) as error:
        raise Forged(f"what should be a job's manifest is none: {error}") from error
    return parts[1:]
