"""All that the broker of a site needs, as a file of definitions to import.

For brokers whose management API is out of reach. An import adds and changes, and removes nothing.
"""

from __future__ import annotations

from typing import Any

from flmq.provision.parties import Provision
from flmq.provision.passwords import Passwords, password_hash
from flmq.provision.wanted import KINDS, wanted

__all__ = ["importable"]


def importable(provision: Provision, site: str, passwords: Passwords) -> dict[str, list[Any]]:
    """Return the definitions of ``site`` for all tenants; new passwords are written.

    They hold hashes of passwords, and the passwords of links between sites.

    Raises:
        StoredDataError: a file of a password is damaged.
    """
    lists: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for tenant in provision:
        users = [party.user for party in tenant.at(site) if party.has_password_file]
        known = passwords.read(users)
        new = passwords.made([user for user in users if user not in known])
        passwords.write(new)
        hashes = {user: password_hash(text) for user, text in {**known, **new}.items()}
        for kind, entries in wanted(tenant, tenant.federation[site], hashes).items():
            lists[kind] += entries
    return lists
