"""The keys of a job's server: who it is, and which clients it trusts.

A job's session keys, which sign and open in one run of it, are derived from the job's secret. That
is in the journal, so a server that resumes has the same, and nothing more is to be kept secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flmq.e2e.keys import Identity, PublicIdentity, load_identity, load_public, roster_digest
from flmq.e2e.manifest import Session
from flmq.e2e.primitives import derive, framed
from flmq.server.job_identity import Job

if TYPE_CHECKING:
    from flmq.server.secure.protection import JobProtection

__all__ = ["JobKeys", "session_of"]


@dataclass(frozen=True)
class JobKeys:
    """Who signs a job's manifest, and the clients that may take part."""

    authority: Identity
    trusted: Mapping[str, PublicIdentity] = field(repr=False)
    """By client id."""

    @classmethod
    def load(cls, keys: Path, trust: Path) -> JobKeys:
        """Read the server's private key and its clients' public ones.

        Raises:
            InvalidKey: a file is not what it should be.
        """
        return cls(load_identity(keys), load_public(trust))

    def protection_of(self, job: Job) -> JobProtection:
        """Return what protects one run of a job with these keys."""
        from flmq.server.secure.protection import JobProtection

        return JobProtection(job, self)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the server's public key."""
        return self.authority.public.fingerprint

    def __str__(self) -> str:
        """Say who speaks and who may, for a run's record."""
        name, trusted = self.authority.name, len(self.trusted)
        return f"signed by {name} ({self.fingerprint}); trusts {trusted} clients"

    @property
    def roster(self) -> bytes:
        """The digest of the trusted clients."""
        return roster_digest(self.trusted.values())


def session_of(job: Job) -> Session:
    """Return the session keys of a run: the same for each of its servers."""

    def secret(use: str) -> bytes:
        return derive(job.secret, framed("session", use, job.name, job.run_id))

    return Session(secret("sign"), secret("seal"), secret("models"))
