"""Contradictions among the users of a file: whoever bears another's name could speak for it."""

from __future__ import annotations

from pathlib import Path

from flmq.provision.parties import Party, Provision, Role, Tenant
from flmq.sites.tables import InvalidFederation

__all__ = ["check_users"]


def check_users(file: Path, provision: Provision) -> None:
    """Check that each user of a broker is one party, and no party bears another's name.

    Raises:
        InvalidFederation: it is otherwise.
    """
    brokers: dict[tuple[str, int, str], str] = {}
    for tenant in provision:
        _check_clients(file, tenant)
        for party in tenant.parties:
            _check_admin(file, tenant, party)
            site = tenant.federation[party.site]
            place = site.management.host, site.management.port, party.user
            what = _what(tenant, party)
            if place in brokers:
                raise InvalidFederation(
                    file,
                    f"user {party.user!r}",
                    f"is {brokers[place]}, and {what}, on one broker: give one of them another "
                    'name (user = "...")',
                )
            brokers[place] = what


def _check_clients(file: Path, tenant: Tenant) -> None:
    spoken: dict[str, Party] = {}
    for party in tenant.parties:
        for client_id in party.client_ids:
            if client_id in spoken:
                raise InvalidFederation(
                    file,
                    f"client {client_id!r}",
                    f"stands in two tables: at site {spoken[client_id].site} by user "
                    f"{spoken[client_id].user!r}, and at {party.site} by {party.user!r}",
                )
            spoken[client_id] = party
    for party in tenant.parties:
        namesake = spoken.get(party.user)
        if namesake is not None and namesake is not party:
            raise InvalidFederation(
                file,
                f"user {party.user!r}",
                f"is the name of a client for which it does not speak (user {namesake.user!r} "
                "does): a server without this file would believe it; choose another user",
            )


def _check_admin(file: Path, tenant: Tenant, party: Party) -> None:
    site = tenant.federation[party.site]
    for login, where in ((site.management.user, "management_url"), (site.url.user, "url")):
        if party.user in (login, "guest"):
            raise InvalidFederation(
                file,
                f"user {party.user!r}",
                f"is who provisions site {site.name!r} (its {where}), or the broker's own: it "
                "would lose its rights; choose another user",
            )


def _what(tenant: Tenant, party: Party) -> str:
    of = f" of tenant {tenant.name!r}" if tenant.name else ""
    ids = f" ({party.client_ids[0]})" if party.role is Role.CLIENT else ""
    return f"the {party.role.value}{ids} at site {party.site}{of}"
