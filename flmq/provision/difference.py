"""What must change on a broker: the difference between what is wanted and what stands there. Pure.

Both are definitions. Only what flmq made is changed or removed: users with its tag, queues of
clients and aggregators as provision makes them, policies by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flmq.common.errors import BrokerRefusal
from flmq.provision.wanted import ASPECTS, KEYS, KINDS, Definitions, Entry, tag_of
from flmq.transport.topology import AMOUNTS

__all__ = ["Difference", "NotOurs", "WrongType", "difference"]

_OUR_POLICY = "flmq.provision."
_OUR_QUEUE = re.compile(r"flmq\.(client|models|aggregator|regional|regional\.uploads|partials)\.")
_SITES = ("federation-upstream", "federation-upstream-set")

_Key = tuple[str, ...]


class NotOurs(BrokerRefusal):
    """A user stands on the broker by a name that the file wants, and flmq did not make it."""

    def __init__(self, site: str, user: str) -> None:
        """Name the ``site`` and the ``user``."""
        self.user = user
        super().__init__(
            f"site {site!r} has a user {user!r} that was not made for this virtual host by "
            "`flmq provision`, so it is not touched: choose another name in the file, or, if "
            f"nobody needs it: rabbitmqctl delete_user {user}"
        )


class WrongType(BrokerRefusal):
    """An exchange or queue stands there that cannot be used, and cannot be changed."""

    def __init__(self, site: str, what: str) -> None:
        """Name the ``site`` and ``what`` stands there."""
        super().__init__(
            f"site {site!r} has {what}, of another type: delete it, if nothing else uses it, and "
            "run this again"
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """What is to be made, changed and removed at one site, each by the names of lists."""

    site: str
    make: Definitions
    change: Definitions
    """As they are to be. Queues cannot be changed: they are deleted, and made again."""
    remove: Definitions
    """As they are, and limits of users. A user goes with its permissions, a queue with bindings."""
    foreign: tuple[str, ...] = field(default=(), compare=False)
    """Users with rights on the virtual host that flmq did not make: named, and left alone."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not any(
            entries for each in (self.make, self.change, self.remove) for entries in each.values()
        )

    @property
    def posted(self) -> Definitions:
        """What is made by one import: all that is made or changed."""
        return {kind: [*self.make[kind], *self.change[kind]] for kind in KINDS}


def difference(
    site: str, vhost: str, wanted: Definitions, standing: Definitions, admin: str
) -> Difference:
    """Return what makes ``standing`` as ``wanted``, both of the virtual host ``vhost`` of a site.

    ``admin`` is the user who makes it so, and who needs rights there. Links between sites are not
    compared here: `flmq.sites.plan` does.

    Raises:
        NotOurs: a user stands that another one made.
        WrongType: an exchange or a queue cannot be what it must be.
    """
    make, change, remove = _lists(), _lists(), _lists()
    want = {kind: _by_key(kind, wanted[kind]) for kind in KINDS}
    there = {kind: _by_key(kind, standing[kind]) for kind in KINDS}
    tag = tag_of(vhost)
    if (admin,) not in there["permissions"]:
        want["permissions"] = {(admin,): _everything(admin, vhost), **want["permissions"]}
    for kind in KINDS:
        for key, entry in want[kind].items():
            have = there[kind].get(key)
            if _is_link(kind, entry):
                continue
            if have is None:
                make[kind].append(entry)
            elif kind == "users" and tag not in _tags(have):
                raise NotOurs(site, entry["name"])
            elif not _same(kind, entry, have):
                _check_changeable(site, kind, entry)
                change[kind].append(entry)
        remove[kind] += (
            entry
            for key, entry in there[kind].items()
            if key not in want[kind] and _is_ours(kind, entry, want, tag)
        )
    remove["user_limits"] += _lifted(want["users"], there["users"])
    # They can be removed all together only, so those that are wanted are made again.
    bare = {entry["user"] for entry in remove["topic_permissions"]}
    again = (*make["topic_permissions"], *change["topic_permissions"])
    known = {_key("topic_permissions", entry) for entry in again}
    change["topic_permissions"] += (
        entry
        for key, entry in want["topic_permissions"].items()
        if entry["user"] in bare and key not in known
    )
    foreign = (
        entry["user"]
        for key, entry in there["permissions"].items()
        if key not in want["permissions"]
        and entry["user"] != admin
        and tag not in _tags(there["users"].get((entry["user"],), {}))
        and any(entry[what] not in ("", "^$") for what in ("configure", "write", "read"))
    )
    return Difference(site, make, change, remove, tuple(sorted(foreign)))


def _lists() -> dict[str, list[Any]]:
    return {kind: [] for kind in (*KINDS, "user_limits")}


def _everything(user: str, vhost: str) -> Entry:
    return {"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}


def _lifted(want: Mapping[_Key, Entry], there: Mapping[_Key, Entry]) -> Iterator[Entry]:
    """Yield the limits of users that are wanted no more: an import does not lift them."""
    for key, entry in want.items():
        for limit in there.get(key, {}).get("limits") or {}:
            if limit not in entry["limits"]:
                yield {"user": entry["name"], "name": limit}


def _by_key(kind: str, entries: Iterable[Entry]) -> dict[_Key, Entry]:
    return {_key(kind, entry): entry for entry in entries}


def _key(kind: str, entry: Entry) -> _Key:
    return tuple(entry[name] for name in KEYS[kind])


def _is_link(kind: str, entry: Entry) -> bool:
    """Return whether an entry is of a link between sites."""
    if kind == "policies":
        return not str(entry["name"]).startswith(_OUR_POLICY)
    return kind == "parameters" and entry["component"] in _SITES


def _same(kind: str, entry: Entry, have: Entry) -> bool:
    if kind == "users":
        # A limit that stands and is not wanted is taken away, by its own call.
        return (
            entry["password_hash"] == have["password_hash"]
            and set(entry["tags"]) == _tags(have)
            and dict(entry["limits"]) == dict(have.get("limits") or {})
        )
    if kind == "queues" and not _OUR_QUEUE.match(entry["name"]):
        # The stream and the dead letters may have other sizes: they are used as they are.
        return bool(have["durable"]) and _kind(entry) == _kind(have)
    return all(entry[aspect] == have.get(aspect) for aspect in ASPECTS[kind])


def _kind(queue: Entry) -> dict[str, Any]:
    """Return a queue's arguments without those that only limit an amount."""
    return {key: value for key, value in queue["arguments"].items() if key not in AMOUNTS}


def _check_changeable(site: str, kind: str, entry: Entry) -> None:
    if kind == "exchanges":
        raise WrongType(site, f"exchange {entry['name']!r}")
    if kind == "queues" and not _OUR_QUEUE.match(entry["name"]):
        raise WrongType(site, f"queue {entry['name']!r}")


def _is_ours(kind: str, entry: Entry, want: Mapping[str, Mapping[_Key, Entry]], tag: str) -> bool:
    """Return whether provision made an entry that is wanted no more."""
    match kind:
        case "users":
            return tag in _tags(entry)
        case "topic_permissions":
            return (entry["user"],) in want["users"]
        case "policies":
            return str(entry["name"]).startswith(_OUR_POLICY)
        case "queues":
            # A process that declares such a queue by itself has it expire.
            return (
                _OUR_QUEUE.match(entry["name"]) is not None
                and "x-expires" not in entry["arguments"]
            )
        case "bindings":
            # A queue takes its bindings with it.
            return (
                entry["destination_type"] == "queue"
                and _OUR_QUEUE.match(entry["destination"]) is not None
                and (entry["destination"],) in want["queues"]
            )
    return False


def _tags(user: Entry) -> set[str]:
    tags = user.get("tags") or ()
    return set(tags.split(",") if isinstance(tags, str) else tags)
