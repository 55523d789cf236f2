"""What must change on the brokers: the difference between what is wanted and what stands there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from flmq.common.errors import BrokerRefusal, UsageError
from flmq.sites.federation import Federation, Site
from flmq.sites.wanted import DOWN, OURS, UP, Item, Kind, buffer_name, wanted, wanted_buffers

__all__ = [
    "Change",
    "NotALeaf",
    "Sign",
    "Standing",
    "WrongType",
    "plan_apply",
    "plan_remove",
]

Key = tuple[Kind, str]

_LINKS = (Kind.UPSTREAM, Kind.UPSTREAM_SET, Kind.POLICY)
_KINDS = tuple(Kind)


class NotALeaf(UsageError):
    """A site cannot be taken away while others are linked to it."""

    def __init__(self, name: str, children: Iterable[str]) -> None:
        """Name the site and the sites below it."""
        self.name = name
        below = ", ".join(children)
        super().__init__(
            f"site {name!r} is the parent of {below}: remove those first, or give them another "
            "parent and apply that"
            if below
            else f"site {name!r} is the hub: there is nothing above it to take it away from"
        )


class WrongType(BrokerRefusal):
    """An exchange or queue stands there that cannot be used, and cannot be changed."""

    def __init__(self, site: str, item: Item) -> None:
        """Name the ``site`` and what is wanted there."""
        self.site = site
        super().__init__(
            f"site {site!r} has {item.kind.value} {item.name!r}, of another type: delete it, "
            "if nothing else uses it, and apply again"
        )


class Sign(Enum):
    """What becomes of an object."""

    MAKE = "+"
    CHANGE = "~"
    REMOVE = "-"


@dataclass(frozen=True, slots=True)
class Change:
    """One object that is to be made, changed or removed on the broker of one site."""

    sign: Sign
    site: str
    item: Item
    """As it is to be; as it is, where it is removed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands on a site's broker, as far as it concerns flmq's sites."""

    items: Mapping[Key, Item] = field(default_factory=dict)
    cluster: str = ""
    """The broker's cluster name, after which links name their buffers."""


def plan_apply(federation: Federation, standing: Mapping[str, Standing]) -> tuple[Change, ...]:
    """Return what makes the brokers in ``standing`` (by site) as ``federation`` wants them.

    Upstreams, sets and policies of ours that it does not want are removed, and the buffers of links
    that it does not have.

    Raises:
        WrongType: an exchange or a queue cannot be what it must be.
    """
    clusters = {name: each.cluster for name, each in standing.items()}
    changes: list[Change] = []
    for site in federation:
        if site.name not in standing:
            continue
        there = standing[site.name].items
        want = {(item.kind, item.name): item for item in wanted(federation, site)}
        changes += _made(site.name, want, there)
        stale = set(_all_buffers(federation, site, clusters))
        stale -= set(wanted_buffers(federation, site, clusters))
        changes += (
            Change(Sign.REMOVE, site.name, item)
            for key, item in there.items()
            if (_is_link(item) and key not in want)
            or (item.kind is Kind.BUFFER and item.name in stale)
        )
    return _ordered(changes)


def plan_remove(
    federation: Federation, name: str, standing: Mapping[str, Standing]
) -> tuple[Change, ...]:
    """Return what takes the links of the site ``name`` away, at both their ends, and nothing else.

    Of a site that is not in ``standing`` only the other end's part is taken away.

    Raises:
        UnknownSite: there is no such site.
        NotALeaf: it is the hub, or other sites are linked to it.
    """
    site = federation[name]
    if site.parent is None or federation.children(name):
        raise NotALeaf(name, [child.name for child in federation.children(name)])
    parent = federation[site.parent]
    clusters = {each: standing[each].cluster for each in standing}
    changes: list[Change] = []
    if name in standing:
        gone = set(wanted_buffers(federation, site, clusters))
        changes += (
            Change(Sign.REMOVE, name, item)
            for item in standing[name].items.values()
            if _is_link(item) or (item.kind is Kind.BUFFER and item.name in gone)
        )
    if parent.name in standing:
        gone = set(wanted_buffers(federation, parent, clusters))
        gone -= set(wanted_buffers(federation.without(name), parent, clusters))
        changes += _let_go(parent.name, standing[parent.name], name, gone)
    return _ordered(changes)


def _is_link(item: Item) -> bool:
    return item.kind in _LINKS and item.name.startswith(OURS)


def _made(site: str, want: Mapping[Key, Item], there: Mapping[Key, Item]) -> Iterator[Change]:
    for key, item in want.items():
        have = there.get(key)
        if have is None:
            yield Change(Sign.MAKE, site, item)
        elif have.value != item.value:
            if item.kind not in _LINKS:
                raise WrongType(site, item)
            yield Change(Sign.CHANGE, site, item)


def _let_go(parent: str, standing: Standing, name: str, buffers: set[str]) -> Iterator[Change]:
    """Take the child ``name`` from its parent's sets; an empty set goes, with its policy."""
    for what in (f"{OURS}up", f"{OURS}presence"):
        upstream = standing.items.get((Kind.UPSTREAM, f"{what}.{name}"))
        if upstream is not None:
            yield Change(Sign.REMOVE, parent, upstream)
        members = standing.items.get((Kind.UPSTREAM_SET, what))
        if members is None:
            continue
        rest = [each for each in members.value["value"] if each["upstream"] != f"{what}.{name}"]
        if not rest:
            yield Change(Sign.REMOVE, parent, members)
            if policy := standing.items.get((Kind.POLICY, what)):
                yield Change(Sign.REMOVE, parent, policy)
        elif rest != members.value["value"]:
            yield Change(Sign.CHANGE, parent, Item(Kind.UPSTREAM_SET, what, {"value": rest}))
    for item in standing.items.values():
        if item.kind is Kind.BUFFER and item.name in buffers:
            yield Change(Sign.REMOVE, parent, item)


def _all_buffers(federation: Federation, site: Site, clusters: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of buffers that any site of the federation might have at ``site``."""
    for reader in federation:
        if reader.name in clusters and reader.name != site.name:
            for exchange in (*DOWN, *UP):
                yield buffer_name(exchange, site, reader, clusters[reader.name])


def _ordered(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return changes so that whatever one refers to stands: users of a thing go before it."""

    def place(change: Change) -> tuple[bool, int]:
        kind = _KINDS.index(change.item.kind)
        if change.sign is not Sign.REMOVE:
            return False, kind
        return True, kind if change.item.kind is Kind.BUFFER else -kind

    return tuple(sorted(changes, key=place))
