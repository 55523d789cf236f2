"""Read who takes part from federation.toml: clients, servers, aggregators, operators, limits.

The sites are read by `flmq.sites.reading`. Every objection names the file, the key, and what to
write.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from flmq.client.client_ids import InvalidClientIds, client_ids_of
from flmq.common.errors import InvalidClientId
from flmq.common.names import MAX_NAME_LENGTH, check_client_id
from flmq.provision.checks import check_users
from flmq.provision.parties import Limits, Login, Party, Provision, Role, Tenant, UserLimits
from flmq.provision.permissions import (
    aggregator_rights,
    client_rights,
    link_rights,
    observer_rights,
    operator_rights,
    server_rights,
)
from flmq.sites.federation import Federation
from flmq.sites.reading import federation_of, tenants_of
from flmq.sites.tables import Table, hint, read_tables
from flmq.sites.wanted import crossing

__all__ = [
    "AGGREGATOR_KEYS",
    "CLIENT_KEYS",
    "LIMIT_KEYS",
    "LINK_KEYS",
    "OPERATOR_KEYS",
    "SERVER_KEYS",
    "read_provision",
]

_USER_KEYS = ("user", "login", "limits")
CLIENT_KEYS = ("tenant", "ids", "site", *_USER_KEYS)
SERVER_KEYS = ("tenant", "jobs", "site", *_USER_KEYS)
AGGREGATOR_KEYS = ("tenant", "site", *_USER_KEYS)
LINK_KEYS = ("tenant", "site", "limits")
OPERATOR_KEYS = ("tenant", "role", *_USER_KEYS)
_USER_LIMIT_KEYS = ("connections", "channels")
LIMIT_KEYS = (
    *_USER_LIMIT_KEYS, "queue_messages", "queue_bytes", "job_bytes", "vhost_connections",
    "vhost_queues",
)  # fmt: skip

_CONNECTIONS = 8
"""Of a client: three, those of a process that was killed until its heartbeats are missed, spare."""
_CHANNELS = 64
_ANY = range(1, 2**53)
_JOBS = re.compile(r"[A-Za-z0-9_*-]+")
_LONGEST_PATTERN = 60_000
"""Bytes that a permission may take when it is compiled; PCRE has a limit of 64 KiB."""
_TAGS = {
    Role.OPERATOR: ("management", "monitoring", "policymaker"),
    Role.OBSERVER: ("management", "monitoring"),
}


def read_provision(file: Path, environ: Mapping[str, str] | None = None) -> Provision:
    """Read ``file``; ``${NAME}`` in it comes from ``environ``, the process's unless given.

    Raises:
        InvalidFederation: it cannot be read, or contradicts itself.
    """
    top = read_tables(file, environ)
    sites = federation_of(top)
    vhosts = tenants_of(top)
    federations = {name: sites.at_vhost(vhost) for name, vhost in vhosts.items()} or {"": sites}
    limits = {name: top.table("limits") for name in federations}
    for table in top.tables("tenant"):
        name = table.name("name") or ""
        limits[name] = table.table("limits") if table.has("limits") else limits[name]
    parties: dict[str, list[Party]] = {name: [] for name in federations}
    for name, party in _parties(top, federations, limits):
        parties[name].append(party)
    provision = Provision(
        tuple(
            Tenant(name, federation, tuple(parties[name]), _limits(limits[name]))
            for name, federation in federations.items()
        )
    )
    check_users(file, provision)
    return provision


def _parties(
    top: Table, federations: Mapping[str, Federation], limits: Mapping[str, Table]
) -> Iterator[tuple[str, Party]]:
    """Yield each user, with the name of its tenant."""
    aggregators = []
    for table in top.tables("aggregator"):
        table.check_keys(AGGREGATOR_KEYS)
        tenant = _tenant(table, federations)
        aggregators.append((tenant, _aggregator(table, federations[tenant])))
    for table in top.tables("client"):
        table.check_keys(CLIENT_KEYS)
        tenant = _tenant(table, federations)
        sites = {each.site for name, each in aggregators if name == tenant}
        for party in _clients(table, federations[tenant], limits[tenant], sites):
            yield tenant, party
    for table in top.tables("server"):
        table.check_keys(SERVER_KEYS)
        tenant = _tenant(table, federations)
        yield tenant, _server(table, federations[tenant])
    yield from aggregators
    for table in top.tables("link"):
        table.check_keys(LINK_KEYS)
        tenant = _tenant(table, federations)
        if len(federations) > 1:
            raise table.objection(
                "site",
                "has one link_url for all tenants, and a user is of one: leave [[link]] out, and "
                "make the user of link_url by hand, with rights on all their virtual hosts",
            )
        yield tenant, _link(table, federations[tenant])
    for table in top.tables("operator"):
        table.check_keys(OPERATOR_KEYS)
        tenant = _tenant(table, federations)
        for site in federations[tenant]:
            yield tenant, _operator(table, site.name)


def _tenant(table: Table, federations: Mapping[str, Federation]) -> str:
    name = table.name("tenant")
    if name is None:
        if len(federations) > 1:
            raise table.objection("tenant", f"is missing: it is one of {', '.join(federations)}")
        return next(iter(federations))
    if name not in federations or not name:
        known = [each for each in federations if each]
        raise table.objection(
            "tenant",
            f"there is no tenant {name!r}; "
            + (hint(name, known) if known else "write a table [[tenant]] for it, or leave it out"),
        )
    return name


def _clients(
    table: Table, federation: Federation, defaults: Table, aggregated: Collection[str]
) -> Iterator[Party]:
    """Yield the users of a table of clients; the sites of ``aggregated`` have an aggregator."""
    site = _site(table, federation)
    ids = _ids(table)
    user, login = _user(table), _login(table)
    if user is None:
        for client_id in ids:
            limits = _user_limits(table, defaults, 1)
            rights = client_rights(site, [client_id], aggregated=site in aggregated)
            yield Party(Role.CLIENT, client_id, site, rights, login, limits, (client_id,))
        return
    rights = client_rights(site, ids, aggregated=site in aggregated)
    patterns = [rights.read, *(topic.write for topic in rights.topics)]
    if max(map(_compiled, patterns)) > _LONGEST_PATTERN:
        raise table.objection(
            "ids",
            f"are {len(ids)} names that are too unlike for one user: what it may do is one regular "
            "expression, of 64 KiB at most; divide them among several tables [[client]], each with "
            "a user of its own",
        )
    limits = _user_limits(table, defaults, len(ids))
    yield Party(Role.CLIENT, user, site, rights, login, limits, tuple(ids))


def _compiled(pattern: str) -> int:
    """Return a bound of the bytes that PCRE makes of a pattern (pcre_compile.c)."""
    return (
        2 * len(pattern) + 33 * pattern.count("[") + 4 * pattern.count("|") + 8 * pattern.count("(")
    )


def _ids(table: Table) -> list[str]:
    form = 'write a list ["alice", "bob"], a pattern "site-a-{0..99}", or the name of a file'
    given: list[str] | str | None
    if table.is_list("ids"):
        given = table.texts("ids")
    else:
        given = table.text("ids")
        if given is not None and given.isdigit():
            raise table.objection("ids", f"is a number: {form}")
        if given is not None and "{" not in given:
            given = str(table.file.parent / given)
    if given is None:
        raise table.objection("ids", f"is missing: {form}")
    try:
        return client_ids_of(given)
    except InvalidClientIds as error:
        raise table.objection("ids", f"{error}; {form}") from error


def _server(table: Table, federation: Federation) -> Party:
    user = _user(table)
    if user is None:
        raise table.objection("user", "is missing: name the user as whom the server logs in")
    jobs = table.texts("jobs") or ["*"]
    for job in jobs:
        if _JOBS.fullmatch(job) is None or len(job) > MAX_NAME_LENGTH:
            raise table.objection(
                "jobs",
                f"has {job[:80]!r}, which names no job: write letters, digits, '_' and '-', and "
                "'*' for any of them, as in \"mnist-*\"",
            )
    site = _site(table, federation)
    limits = _user_limits(table, None, 1)
    return Party(Role.SERVER, user, site, server_rights(jobs), _login(table), limits)


def _aggregator(table: Table, federation: Federation) -> Party:
    site = _site(table, federation)
    user = _user(table) or f"aggregator-{site}"[:MAX_NAME_LENGTH]
    below = tuple(child.name for child in federation.children(site))
    rights = aggregator_rights(site, federation[site].parent, below)
    limits = _user_limits(table, None, 1)
    return Party(Role.AGGREGATOR, user, site, rights, _login(table), limits, below=below)


def _link(table: Table, federation: Federation) -> Party:
    """Return the user as whom other brokers fetch from a site: that of its ``link_url``."""
    name = _site(table, federation)
    site = federation[name]
    login = site.link_url
    if login.user in (site.url.user, site.management.user):
        raise table.objection(
            "site",
            f"is {name!r}, whose link_url has no user of its own: write one in its [[site]], as in "
            f'link_url = "amqp://link-{name}:${{LINK_PASSWORD}}@{login.host}"',
        )
    exchanges = {
        exchange
        for neighbour in federation.neighbours(name)
        for exchange in crossing(site, neighbour)
    }
    if not exchanges:
        raise table.objection("site", f"is {name!r}, which is linked to no other")
    limits = _user_limits(table, None, 1)
    return Party(
        Role.LINK,
        login.user,
        name,
        link_rights(sorted(exchanges)),
        limits=limits,
        password=login.password,
    )


def _operator(table: Table, site: str) -> Party:
    user = _user(table)
    if user is None:
        raise table.objection("user", "is missing: name the user as whom this person logs in")
    role = Role(table.one_of("role", (Role.OBSERVER.value, Role.OPERATOR.value), Role.OBSERVER))
    rights = operator_rights() if role is Role.OPERATOR else observer_rights()
    limits = _user_limits(table, None, 1)
    return Party(role, user, site, rights, _login(table), limits, tags=_TAGS[role])


def _site(table: Table, federation: Federation) -> str:
    name = table.name("site")
    if name is None:
        return federation.hub.name
    known = [site.name for site in federation]
    if name not in known:
        raise table.objection("site", f"there is no site {name!r}; {hint(name, known)}")
    return name


def _user(table: Table) -> str | None:
    name = table.text("user")
    try:
        return name and check_client_id(name)
    except InvalidClientId as error:
        raise table.objection("user", f"{error}; the same holds for users") from error


def _login(table: Table) -> Login:
    return Login(table.one_of("login", [each.value for each in Login], Login.PASSWORD))


def _user_limits(table: Table, defaults: Table | None, clients: int) -> UserLimits:
    """Return the limits of a user; ``defaults`` are those of each of its ``clients``."""
    own = table.table("limits")
    own.check_keys(_USER_LIMIT_KEYS)
    limits = UserLimits(_limit(own, "connections"), _limit(own, "channels"))
    if defaults is None:
        return limits
    default = UserLimits(
        (_limit(defaults, "connections") or _CONNECTIONS) * clients,
        (_limit(defaults, "channels") or _CHANNELS) * clients,
    )
    return replace(
        default,
        connections=limits.connections or default.connections,
        channels=limits.channels or default.channels,
    )


def _limits(table: Table) -> Limits:
    table.check_keys(LIMIT_KEYS)
    return Limits(
        _limit(table, "vhost_connections"),
        _limit(table, "vhost_queues"),
        _limit(table, "queue_messages"),
        _limit(table, "queue_bytes"),
        _limit(table, "job_bytes"),
    )


def _limit(table: Table, name: str) -> int | None:
    return table.number(name, 1, _ANY) if table.has(name) else None
