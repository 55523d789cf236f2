"""The options of a client's end-to-end protection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flmq.common.errors import UsageError
from flmq.common.options import option

if TYPE_CHECKING:
    from flmq.client.secure.keys import ClientKeys

__all__ = ["ClientKeyOptions", "InvalidClientKeys"]


class InvalidClientKeys(UsageError):
    """A client's keys are given and not used, are to be used and not given, or are another's."""


@dataclass(frozen=True, slots=True)
class ClientKeyOptions:
    """Whether clients serve only jobs that are protected from end to end, and their keys."""

    e2e: bool = option(
        False,
        "Serve only jobs whose server signs and seals what it says, and do the same: for a broker "
        "that is not trusted (docs/e2e.md). Needs --key and --server-key.",
        names=("--e2e",),
        env="FLMQ_E2E",
    )
    key: Path | None = option(
        None,
        "This client's private key, NAME.key of `flmq keys new NAME`; of many clients, their "
        "folder.",
        env="FLMQ_KEY",
        show_default=False,
    )
    server_key: Path | None = option(
        None,
        "Public key of the server whose jobs are served: its NAME.pub, or a folder of several.",
        env="FLMQ_SERVER_KEY",
        show_default=False,
    )
    roster: Path | None = option(
        None,
        "Public keys of all clients that may take part beside this one, as --trust of the server: "
        "refuse jobs with others. Default: the server chooses.",
        env="FLMQ_ROSTER",
        show_default=False,
    )

    def name(self) -> str | None:
        """Return the name of the one key that ``key`` is the file of; None: there is no such.

        Raises:
            InvalidKey: the file is no private key.
            SecureExtraMissing: the package cryptography is not installed.
        """
        if not self.e2e or self.key is None or self.key.is_dir():
            return None
        from flmq.e2e.keys import load_identity  # needs cryptography

        return load_identity(self.key).name

    def load(self, clients: Iterable[str]) -> ClientKeys | None:
        """Read the keys for these client ids; None if nothing is protected.

        Raises:
            InvalidClientKeys: the options contradict each other, or a client has no key.
            InvalidKey: a file is not what it should be.
            SecureExtraMissing: the package cryptography is not installed.
        """
        if not self.e2e:
            if not self.key is self.server_key is self.roster is None:
                raise InvalidClientKeys(
                    "keys are for e2e: give --e2e (e2e=True) too, or leave out --key, --server-key "
                    "and --roster"
                )
            return None
        if self.key is None or self.server_key is None:
            raise InvalidClientKeys(
                "e2e needs to know who this client is and which server it trusts: give --key "
                "(key=...), the private key that `flmq keys new CLIENT-ID` made, and --server-key "
                "(server_key=...), the public key that whoever runs the server gave you"
            )
        from flmq.client.secure.keys import ClientKeys

        return ClientKeys.load(self.key, self.server_key, self.roster, list(clients))
