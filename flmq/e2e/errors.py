"""Errors of the end-to-end layer, under flmq's own tree.

::

    UsageError
    ├── SecureExtraMissing   the package `cryptography` is not installed
    └── InvalidKey           a key's file cannot be used
        └── KeyNotPrivate    others on this machine may read it
    PeerError
    ├── MalformedMessage
    │   └── Forged           signed by another key, changed, replayed elsewhere, or not for us
    ├── Mismatch             one end uses keys and the other does not, or not the same ones
    │   ├── NotProtected     it is plain, and nothing plain is taken here
    │   ├── Protected        it is signed or sealed, and there are no keys here
    │   ├── UnknownKey       signed by somebody whose key is not trusted here
    │   ├── ManifestExpired  the job's manifest is not valid at this time
    │   ├── OtherRoster      the job is for another set of clients than was pinned here
    │   └── Outdated         it is of a run that a later one has taken the place of
    └── NoManifest           nothing of this job was heard yet: there is no key to seal to
"""

from __future__ import annotations

from flmq.common.errors import MalformedMessage, PeerError, UsageError

__all__ = [
    "Forged",
    "InvalidKey",
    "KeyNotPrivate",
    "ManifestExpired",
    "Mismatch",
    "NoManifest",
    "NotProtected",
    "OtherRoster",
    "Outdated",
    "Protected",
    "SecureExtraMissing",
    "UnknownKey",
]


class SecureExtraMissing(UsageError):
    """End-to-end protection is asked for, and ``cryptography`` is not installed, or is too old."""

    def __init__(self, why: str) -> None:
        """Say what the import failed with."""
        super().__init__(
            f"keys need the package cryptography, 47 or newer ({why}): pip install 'flmq[secure]'"
        )


class InvalidKey(UsageError):
    """A file holds no key of the expected form."""


class KeyNotPrivate(InvalidKey):
    """A private key may be read by other users of the machine."""


class Forged(MalformedMessage):
    """A signature, a seal or a chunk does not fit: it was changed, or made for something else."""


class Mismatch(PeerError):
    """The two ends do not agree on keys: a person has to decide. Said once a ``subject``."""

    def __init__(self, subject: str, message: str) -> None:
        """Be about ``subject``, a client or a job; ``message`` says which end lacks what."""
        self.subject = subject
        super().__init__(message)


class NotProtected(Mismatch):
    """A plain message came where only signed ones count."""


class Protected(Mismatch):
    """A signed or sealed message came where there are no keys."""


class UnknownKey(Mismatch):
    """It is signed by somebody whose key is not trusted here."""


class ManifestExpired(Mismatch):
    """The manifest of a job is over, or not yet valid, by the clock of this machine."""


class OtherRoster(Mismatch):
    """The manifest is of a job for other clients than those pinned here."""


class Outdated(Mismatch):
    """It is of a run of its job that a later one has taken the place of."""


class NoManifest(PeerError):
    """There is no key of the job's server to seal to: it was not heard yet."""

    def __init__(self, job: str) -> None:
        """Name the job."""
        self.job = job
        super().__init__(
            f"job {job!r}: its server was not heard yet, so there is no key to seal a reply to"
        )
