"""The state of the links between sites: whether they run, why not, and what waits for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from flmq.broker.management import NoSuchThing
from flmq.common.errors import BrokerAccessRefused, BrokerError
from flmq.common.urls import BrokerUrl
from flmq.sites.brokers import FEDERATION_PLUGINS_MEND, buffers, naming
from flmq.sites.federation import Federation, Site
from flmq.sites.wanted import buffer_name, crossing, parent_url

__all__ = ["LinkState", "LinkStatus", "links_of", "links_to"]

_RUNNING = "running"
_STARTING = "starting"


class LinkState(StrEnum):
    """Whether messages cross a link."""

    RUNNING = "running"
    STARTING = "starting"
    DOWN = "down"
    ABSENT = "not set up"
    UNKNOWN = "unknown"
    """The broker that keeps the link up cannot be asked."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One direction of the link between a site and its parent."""

    source: str
    """Site whose messages cross it."""
    target: str
    """Site whose broker fetches them."""
    state: LinkState
    reason: str = ""
    """Why it is not running, as the broker says."""
    mend: str = ""
    """What to do."""
    waiting: int | None = None
    """Messages that wait at the source; None: it cannot be asked."""

    @property
    def running(self) -> bool:
        """Whether messages cross it."""
        return self.state is LinkState.RUNNING

    @property
    def ends(self) -> str:
        """From which site to which it leads."""
        return f"{self.source} -> {self.target}"

    @property
    def condition(self) -> str:
        """What it is like, in words: its state, why, and what waits for it."""
        waits = f", {self.waiting} waiting" if self.waiting else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.state.value}{why}{waits}"

    def __str__(self) -> str:
        """Return one line, without what to do."""
        return f"{self.ends} {self.condition}"


@dataclass(frozen=True, slots=True)
class _Judged:
    """What one link of RabbitMQ's, of one exchange, is like."""

    state: LinkState
    reason: str = ""
    mend: str = ""


def links_of(federation: Federation, only: str | None = None) -> list[LinkStatus]:
    """Return the state of both directions of each link; never raises for a broker that is away.

    ``only`` those that the broker of this site keeps up.
    """
    clusters: dict[str, str] = {}
    waiting: dict[str, dict[str, int]] = {}
    for site in federation:
        try:
            with naming(site):
                clusters[site.name] = site.management.call("GET", "/api/cluster-name")["name"]
                waiting[site.name] = {item.name: item.value["messages"] for item in buffers(site)}
        except BrokerError:
            continue  # told where its own links are asked for
    return [
        status
        for target in federation
        if only in (None, target.name)
        for status in links_to(federation, target, clusters, waiting)
    ]


def links_to(
    federation: Federation,
    target: Site,
    clusters: Mapping[str, str],
    waiting: Mapping[str, Mapping[str, int]],
) -> Iterator[LinkStatus]:
    """Yield the state of the links by which the broker of ``target`` fetches from others.

    ``clusters`` are the brokers' cluster names, ``waiting`` the messages in each of their buffers.
    """
    sources = federation.neighbours(target.name)
    if not sources:
        return
    found, wrong = _ask(target)
    for source in sources:
        exchanges = crossing(source, target)
        mistaken = wrong or _mistaken(federation, (source, target), clusters)
        waits = _waiting(source, target, exchanges, clusters, waiting)
        url = source.link_url if source.parent == target.name else parent_url(federation, target)
        worst = mistaken or _worst(
            _judge(each, source, target, url) for each in _wanted_links(found, source, exchanges)
        )
        yield LinkStatus(source.name, target.name, worst.state, worst.reason, worst.mend, waits)


def _mistaken(
    federation: Federation, ends: tuple[Site, Site], clusters: Mapping[str, str]
) -> _Judged | None:
    """Return what is wrong if RabbitMQ takes the broker of one end for another site's.

    A broker drops what it has seen, and shares a buffer, by cluster name and virtual host.
    """
    for end in ends:
        name = clusters.get(end.name)
        for other in federation:
            if (
                name is not None
                and other is not end
                and (clusters.get(other.name), other.vhost) == (name, end.vhost)
            ):
                return _Judged(
                    LinkState.DOWN,
                    f"the brokers of {end.name} and {other.name} have one cluster name, {name}, "
                    "so that one is taken for the other",
                    f"on the machine of {other.name}: rabbitmqctl set_cluster_name {other.name}",
                )
    return None


def _ask(target: Site) -> tuple[list[Mapping[str, Any]], _Judged | None]:
    path = f"/api/federation-links/{quote(target.vhost, safe='')}"
    try:
        return target.management.call("GET", path) or [], None
    except NoSuchThing:
        return [], _Judged(
            LinkState.UNKNOWN,
            f"the broker of {target.name} has no plugin for links",
            f"on its machine: {FEDERATION_PLUGINS_MEND}",
        )
    except BrokerAccessRefused as error:
        return [], _Judged(
            LinkState.UNKNOWN,
            str(error),
            f"correct the login of site {target.name!r}, or give it the tag monitoring besides "
            "those that it has",
        )
    except BrokerError as error:
        return [], _Judged(
            LinkState.UNKNOWN,
            str(error),
            f"see that its broker runs, or correct management_url of site {target.name!r}",
        )


def _wanted_links(
    found: Iterable[Mapping[str, Any]], source: Site, exchanges: Iterable[str]
) -> list[Mapping[str, Any] | None]:
    by_exchange = {
        each.get("exchange"): each
        for each in found
        if str(each.get("upstream", "")).rpartition(".")[2] == source.name
    }
    return [by_exchange.get(exchange) for exchange in exchanges]


def _worst(judged: Iterable[_Judged]) -> _Judged:
    order = [LinkState.RUNNING, LinkState.STARTING, LinkState.ABSENT, LinkState.DOWN]
    return max(judged, key=lambda each: order.index(each.state))


def _judge(link: Mapping[str, Any] | None, source: Site, target: Site, url: BrokerUrl) -> _Judged:
    if link is None:
        shown = f"rabbitmqctl list_policies -p {target.vhost}"
        mend = f"flmq site apply; if that changes nothing, another policy stands before it: {shown}"
        return _Judged(LinkState.ABSENT, "", mend)
    status, error = link.get("status"), " ".join(str(link.get("error", "")).split())
    if status == _RUNNING:
        return _Judged(LinkState.RUNNING)
    if status == _STARTING:
        return _Judged(LinkState.STARTING)
    user = url.user
    for signs, reason, mend in (
        (
            ("auth_failure", "Login was refused"),
            f"{source.name} refuses the password of user {user!r}",
            f"correct link_url of site {source.name!r}, and flmq site apply",
        ),
        (
            ("not_allowed", "access to vhost"),
            f"{source.name} has no virtual host {url.vhost!r} that user {user!r} may use",
            f"on its machine: rabbitmqctl set_permissions -p {url.vhost} {user} '.*' '.*' '.*'",
        ),
        (
            ("ACCESS_REFUSED", "access_refused"),
            f"user {user!r} lacks a permission at {source.name}",
            f"on its machine: rabbitmqctl set_permissions -p {url.vhost} {user} '.*' '.*' '.*'",
        ),
        (
            ("NOT_FOUND", "not_found"),
            f"{source.name} lacks its exchanges",
            f"flmq site apply --site {source.name}",
        ),
        (
            ("econn", "ehost", "enet", "nxdomain", "timeout", "closed", "eof", "heartbeat"),
            f"{target.name} does not reach {source.name} at {url}",
            "see that its broker runs and the network between them",
        ),
    ):
        if any(sign in error for sign in signs):
            return _Judged(LinkState.DOWN, reason, mend)
    said = error.replace(url.password, "***")[:200] or f"status {status}"
    return _Judged(LinkState.DOWN, said, f"see the log of the broker of {target.name}")


def _waiting(
    source: Site,
    target: Site,
    exchanges: Iterable[str],
    clusters: Mapping[str, str],
    waiting: Mapping[str, Mapping[str, int]],
) -> int | None:
    if target.name not in clusters or source.name not in waiting:
        return None
    names = [buffer_name(each, source, target, clusters[target.name]) for each in exchanges]
    return sum(waiting[source.name].get(name, 0) for name in names)
