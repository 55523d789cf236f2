"""The keys of a worker's clients, and the servers that they trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flmq.client.secure.options import InvalidClientKeys

if TYPE_CHECKING:  # the package behind them is an extra
    from flmq.e2e.keys import Identity, PublicIdentity

__all__ = ["ClientKeys"]

_SHOWN = 5


@dataclass(frozen=True)
class ClientKeys:
    """Who the clients are, and whose manifests they believe."""

    identities: Mapping[str, Identity] = field(repr=False)
    """By client id."""
    authorities: Sequence[PublicIdentity]
    """The servers' keys: any of them may sign a job's manifest."""
    roster: bytes | None = None
    """Digest of the clients that a job must be for; None: the server chooses them."""

    @classmethod
    def load(
        cls, key: Path, server_key: Path, roster: Path | None, clients: Sequence[str]
    ) -> ClientKeys:
        """Read the private keys of ``clients`` and the public ones of servers.

        Raises:
            InvalidClientKeys: a client has no key here.
            InvalidKey: a file is not what it should be.
        """
        from flmq.e2e.keys import load_identities, load_public, roster_digest

        found = load_identities(key)
        missing = [client_id for client_id in clients if client_id not in found]
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            names = ", ".join(missing[:_SHOWN]) + more
            raise InvalidClientKeys(
                f"{key} has no private key of {names}: a key's name is the client's id; "
                f"`flmq keys new {missing[0]}` makes one"
            )
        return cls(
            {client_id: found[client_id] for client_id in clients},
            tuple(load_public(server_key).values()),
            None if roster is None else roster_digest(load_public(roster).values()),
        )
