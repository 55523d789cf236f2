"""The keys of a simulated federation that is protected from end to end: made for it, or given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flmq.client.secure.keys import ClientKeys
from flmq.server.secure.options import Protecting
from flmq.simulation.hands import InvalidSimulation

__all__ = ["SimulatedKeys", "simulated_keys"]

_SERVER = "server"
_SHOWN = 5


@dataclass(frozen=True)
class SimulatedKeys:
    """Keys of both ends, which know each other's."""

    server: Protecting
    clients: ClientKeys


def simulated_keys(
    e2e: bool, folder: Path | str | None, clients: Sequence[str]
) -> SimulatedKeys | None:
    """Return keys for the server and ``clients``; None if nothing is to be protected.

    They are made for the simulation, unless ``folder`` has the private key of each client, and of
    ``server``.

    Raises:
        InvalidSimulation: a folder is given and nothing is to be protected, or a key is missing.
        InvalidKey: a file there is not what it should be.
        SecureExtraMissing: the package cryptography is not installed.
    """
    if not e2e:
        if folder is not None:
            raise InvalidSimulation("keys are for e2e: give e2e=True too, or leave them out")
        return None
    from flmq.e2e.keys import Identity, load_identities  # needs cryptography
    from flmq.server.secure.keys import JobKeys

    names = {*clients, _SERVER}
    if folder is None:
        found = {name: Identity.new(name) for name in names}
    else:
        found = load_identities(Path(folder))
    missing = sorted(names - found.keys())
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InvalidSimulation(
            f"keys={str(folder)!r} has no private key of {', '.join(missing[:_SHOWN])}{more}: "
            f"`flmq keys new {missing[0]} --dir {folder}` makes one, and without keys= all are "
            "made for the simulation"
        )
    authority = found[_SERVER]
    each = {client_id: found[client_id] for client_id in clients}
    trusted = {client_id: identity.public for client_id, identity in each.items()}
    return SimulatedKeys(JobKeys(authority, trusted), ClientKeys(each, (authority.public,)))
