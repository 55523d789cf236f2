"""The options of a server's end-to-end protection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flmq.common.errors import UsageError
from flmq.common.options import option
from flmq.server.job_identity import Job

if TYPE_CHECKING:
    from flmq.server.secure.protection import JobProtection

__all__ = ["InvalidKeyOptions", "KeyOptions", "Protecting"]


class Protecting(Protocol):
    """The keys that protect a job, for modules that can do without the package cryptography.

    `flmq.server.secure.keys.JobKeys` is what they are.
    """

    @property
    def fingerprint(self) -> str:
        """Tells the server's identity from others."""

    def protection_of(self, job: Job) -> JobProtection:
        """Return what protects one run of a job with these keys."""


class InvalidKeyOptions(UsageError):
    """Keys are given and not used, or are to be used and not given."""


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """Whether a job is protected from end to end, and by which keys."""

    e2e: bool = option(
        False,
        "Sign and seal all that this job's server and its clients say: for a broker that is not "
        "trusted (docs/security.md). Needs --keys and --trust.",
        names=("--e2e",),
        env="FLMQ_E2E",
    )
    keys: Path | None = option(
        None,
        "This server's private key, NAME.key of `flmq keys new NAME`.",
        env="FLMQ_KEYS",
        show_default=False,
    )
    trust: Path | None = option(
        None,
        "Public keys of the clients that may take part: a folder of NAME.pub, or one file.",
        env="FLMQ_TRUST",
        show_default=False,
    )

    def load(self) -> Protecting | None:
        """Read the keys; None if the job is not protected.

        Raises:
            InvalidKeyOptions: the options contradict each other.
            InvalidKey: a file is not what it should be.
            SecureExtraMissing: the package cryptography is not installed.
        """
        if not self.e2e:
            if self.keys is not None or self.trust is not None:
                raise InvalidKeyOptions(
                    "keys and trust are for e2e: give --e2e (e2e=True) too, or leave them out"
                )
            return None
        if self.keys is None or self.trust is None:
            raise InvalidKeyOptions(
                "e2e needs to know who this server is and whom it trusts: give --keys (keys=...), "
                "the private key that `flmq keys new` made for it, and --trust (trust=...), a "
                "folder with the public keys of its clients"
            )
        from flmq.server.secure.keys import JobKeys  # needs cryptography

        return JobKeys.load(self.keys, self.trust)
