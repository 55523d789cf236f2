"""Make brokers as the file says, through their management APIs: plan, then carry out.

What is made is posted in imports of some megabytes, as one call an object would take minutes for
thousands of clients. Each step can be made again: whoever is interrupted runs it again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flmq.broker.management import Management, NoSuchThing
from flmq.common.crashpoints import crash_point
from flmq.provision.difference import Difference, difference
from flmq.provision.parties import Provision, Tenant, UnknownUser
from flmq.provision.passwords import Passwords, password_hash
from flmq.provision.standing import PATIENCE, look
from flmq.provision.wanted import KINDS, Definitions, Entry, tag_of, wanted
from flmq.sites import brokers
from flmq.sites.federation import Site
from flmq.sites.plan import Change, Standing, plan_apply
from flmq.sites.wanted import Kind
from flmq.transport.provisioned import PROVISIONED

__all__ = ["Plan", "Step", "carry_out", "planned", "rotate"]

_POSTED_BYTES = 2_000_000
"""Bytes of one import: RabbitMQ takes 8 MB, and this bounds the time of a call."""
_LINKS = (Kind.UPSTREAM, Kind.UPSTREAM_SET, Kind.POLICY, Kind.BUFFER)
_Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Step:
    """What changes on the broker of one site for one tenant."""

    tenant: Tenant
    site: Site
    difference: Difference
    links: tuple[Change, ...] = ()
    unknown: tuple[str, ...] = ()
    """Users who stand with a password whose file is not here: it is left as it is."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return self.difference.is_empty and not self.links


@dataclass(frozen=True, slots=True)
class Plan:
    """What changes, and the new passwords that are to be written before."""

    steps: tuple[Step, ...]
    passwords: Mapping[str, str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return all(step.is_empty for step in self.steps)

    @property
    def gone(self) -> set[str]:
        """Users who are removed, and stay at no site."""
        removed = {e["name"] for s in self.steps for e in s.difference.remove["users"]}
        return removed - {party.user for step in self.steps for party in step.tenant.parties}


def planned(provision: Provision, sites: Collection[str], passwords: Passwords) -> Plan:
    """Return what makes the brokers of the ``sites`` as ``provision`` wants them.

    Raises:
        BrokerError: a broker does not answer or refuses; or what stands there cannot be used.
        StoredDataError: a file of a password is damaged.
    """
    new: dict[str, str] = {}
    steps: list[Step] = []
    for tenant in provision:
        links = _links(tenant, sites)
        for site in tenant.federation:
            if site.name not in sites:
                continue
            standing = look(site)
            hashes, unknown = _hashes(tenant, site, standing, passwords, new)
            want = wanted(tenant, site, hashes)
            admin = site.management.user
            changes = difference(site.name, site.vhost, want, standing, admin)
            here = tuple(change for change in links if change.site == site.name)
            steps.append(Step(tenant, site, changes, here, unknown))
    return Plan(tuple(steps), new)


def carry_out(plan: Plan, passwords: Passwords, tell: _Tell = lambda _: None) -> None:
    """Make what ``plan`` says, and ``tell`` of each step; made again, it changes nothing.

    Passwords are written first: so no user ever has one that nobody knows.

    Raises:
        BrokerError: something cannot be made; what came before it is.
    """
    passwords.write(plan.passwords)
    # Before the users go: afterwards nobody would know whose files are left.
    passwords.forget(plan.gone)
    crash_point("provision.passwords_written")
    for step in plan.steps:
        with brokers.naming(step.site):
            _change(step.site, step.difference, tell)
    for step in plan.steps:
        brokers.carry_out(step.tenant.federation, step.links)
    crash_point("provision.made")
    # Last of all: who sees it relies on all else.
    for step in plan.steps:
        made = step.difference.make["exchanges"]
        with brokers.naming(step.site):
            _post(step.site, {"exchanges": [each for each in made if each["name"] == PROVISIONED]})


def rotate(
    provision: Provision, users: Collection[str] | None, passwords: Passwords
) -> tuple[str, ...]:
    """Give ``users`` (None: all with a password) new passwords; return who has one.

    They are written before they hold. Who is connected stays so.

    Raises:
        UnknownUser: the file has no such user, or it has no password, or stands nowhere yet.
        BrokerError: a broker does not answer or refuses; run it again.
    """
    able = {party.user for party in provision.parties if party.has_password_file}
    chosen = sorted(able if users is None else users)
    for user in chosen:
        if user not in able:
            there = any(party.user == user for party in provision.parties)
            why = "it logs in without a password, or by that of its site's link_url"
            raise UnknownUser(user, *((why,) if there else ()))
    found: list[tuple[Site, list[Any]]] = []
    for tenant in provision:
        for site in tenant.federation:
            names = {party.user for party in tenant.at(site.name)} & set(chosen)
            ours = _ours(site, names) if names else []
            missing = names - {entry["name"] for entry in ours}
            if missing and users is not None:
                raise UnknownUser(min(missing), "it stands on no broker yet: run `flmq provision`")
            found.append((site, ours))
    standing = {entry["name"] for _, entries in found for entry in entries}
    new = passwords.made(standing)
    passwords.write(new)
    crash_point("provision.rotated_files")
    for site, entries in found:
        changed = [{**e, "password_hash": password_hash(new[e["name"]])} for e in entries]
        with brokers.naming(site):
            _post(site, {"users": changed})
    return tuple(sorted(standing))


def _ours(site: Site, names: Collection[str]) -> list[Any]:
    tag = tag_of(site.vhost)
    with brokers.naming(site):
        found = site.management.patient(PATIENCE).call("GET", "/api/users")
    return [each for each in found if each["name"] in names and tag in each["tags"]]


def _hashes(
    tenant: Tenant, site: Site, standing: Definitions, passwords: Passwords, new: dict[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the hashes of users' passwords; those whose passwords are not here; add ``new`` ones.

    A password whose file is not here is left as it stands: this may be another machine.
    """
    users = [party.user for party in tenant.at(site.name) if party.has_password_file]
    known = {**passwords.read(users), **{user: new[user] for user in users if user in new}}
    there = {entry["name"]: entry.get("password_hash") for entry in standing["users"]}
    unknown = tuple(user for user in users if user not in known and there.get(user))
    made = passwords.made([user for user in users if user not in known and not there.get(user)])
    new.update(made)
    hashes = {user: password_hash(text) for user, text in {**known, **made}.items()}
    return {**hashes, **{user: str(there[user]) for user in unknown}}, unknown


def _links(tenant: Tenant, sites: Collection[str]) -> tuple[Change, ...]:
    """Return how the links of a tenant change, as `flmq site apply` would have it."""
    if len(tenant.federation.sites) < 2:
        return ()
    standing = {}
    for site in tenant.federation:
        if site.name in sites:
            try:
                standing[site.name] = brokers.look(tenant.federation, site)
            except brokers.NoVirtualHost:
                with brokers.naming(site):
                    cluster = str(site.management.call("GET", "/api/cluster-name")["name"])
                standing[site.name] = Standing({}, cluster)
    changes = plan_apply(tenant.federation, standing)
    return tuple(change for change in changes if change.item.kind in _LINKS)


def _change(site: Site, change: Difference, tell: _Tell) -> None:
    api, vhost = site.management.patient(PATIENCE), quote(site.vhost, safe="")
    posted = change.posted
    if change.make["vhosts"]:
        api.call("PUT", f"/api/vhosts/{vhost}")
    own = [entry for entry in posted["permissions"] if entry["user"] == api.user]
    if own:
        _post(site, {"permissions": own})
    _remove(api, vhost, change)
    crash_point("provision.removed")
    for queue in change.change["queues"]:
        _delete(api, f"/api/queues/{vhost}/{quote(queue['name'], safe='')}")
    count = sum(map(len, posted.values()))
    done = 0
    for part in _parts(posted):
        _post(site, part)
        done += sum(map(len, part.values()))
        tell(f"{site.name}: {done} of {count} objects")


def _parts(posted: Definitions) -> Iterator[Definitions]:
    """Yield what is posted in parts of some megabytes, in the order of its lists."""
    part: dict[str, list[Any]] = {}
    size = 0
    for kind in KINDS:
        for entry in posted[kind]:
            if kind == "vhosts" or (kind == "exchanges" and entry["name"] == PROVISIONED):
                continue
            part.setdefault(kind, []).append(entry)
            size += len(json.dumps(entry))
            if size >= _POSTED_BYTES:
                yield part
                part, size = {}, 0
    if part:
        yield part


def _post(site: Site, part: Definitions) -> None:
    if any(part.values()):
        site.management.patient(PATIENCE).call("POST", "/api/definitions", part)


def _remove(api: Management, vhost: str, change: Difference) -> None:
    """Remove users first: that closes their connections."""
    gone = change.remove
    if gone["users"]:
        names = [entry["name"] for entry in gone["users"]]
        api.call("POST", "/api/users/bulk-delete", {"users": names})
    for entry in gone["user_limits"]:
        _delete(api, f"/api/user-limits/{quote(entry['user'], safe='')}/{entry['name']}")
    for user in sorted({entry["user"] for entry in gone["topic_permissions"]}):
        _delete(api, f"/api/topic-permissions/{vhost}/{quote(user, safe='')}")
    for entry in gone["bindings"]:
        _unbind(api, vhost, entry)
    for entry in gone["policies"]:
        _delete(api, f"/api/policies/{vhost}/{quote(entry['name'], safe='')}")
    for entry in gone["queues"]:
        _delete(api, f"/api/queues/{vhost}/{quote(entry['name'], safe='')}")


def _unbind(api: Management, vhost: str, entry: Entry) -> None:
    source, queue = quote(entry["source"], safe=""), quote(entry["destination"], safe="")
    path = f"/api/bindings/{vhost}/e/{source}/q/{queue}"
    found: Iterable[Mapping[str, Any]] = ()
    with contextlib.suppress(NoSuchThing):
        found = api.call("GET", path) or ()
    for each in found:
        if each["routing_key"] == entry["routing_key"]:
            _delete(api, f"{path}/{quote(each['properties_key'], safe='')}")


def _delete(api: Management, path: str) -> None:
    with contextlib.suppress(NoSuchThing):
        api.call("DELETE", path)
