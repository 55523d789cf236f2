"""A federation of sites: a real broker each, the links between them, and what befalls both.

Where the machine allows it (root, Linux, iproute2), each broker is in a network namespace of its
own, and the links are wires that the kernel cuts, slows and counts; else brokers share loopback,
and the links are the suite's TCP proxies. A run is played on it by `tests.chaos.run.play`.
"""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from urllib.parse import quote

from flmq.broker.layout import FEDERATION_PLUGINS
from flmq.broker.management import Management
from flmq.broker.node import PrivateNode
from flmq.common.errors import BrokerError
from flmq.common.urls import BrokerUrl, parse_broker_url
from flmq.sites.brokers import carry_out, planned
from flmq.sites.federation import Federation
from flmq.sites.federation import Site as FederatedSite
from flmq.sites.links import links_to
from flmq.transport import DEFAULT_SITE
from tests.chaos.stage import patiently, queue_depths
from tests.sites.networks import (
    AMQP_PORT,
    Link,
    Namespace,
    ProxiedLink,
    Wire,
    namespaces_work,
)

__all__ = ["CHAIN", "HUB", "STAR", "Site", "Sites"]

HUB = DEFAULT_SITE
STAR: Mapping[str, str | None] = {HUB: None, "eu": HUB, "asia": HUB}
"""Each site, and its parent."""
CHAIN: Mapping[str, str | None] = {HUB: None, "eu": HUB, "eu-west": "eu"}

_HEARTBEAT = 2


@dataclass(slots=True)
class Site:
    """A site, its broker, and where both are."""

    name: str
    parent: str | None
    node: PrivateNode
    space: Namespace | None
    link: Link | None = None
    """To its parent."""

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread where the site's processes are."""
        with self.space.inside() if self.space else contextlib.nullcontext():
            yield


class Sites:
    """Brokers that stay up for many runs, each on a virtual host of its own. A context manager."""

    def __init__(
        self, parents: Mapping[str, str | None] = STAR, *, namespaces: bool | None = None
    ) -> None:
        """Prepare; ``parents`` names a parent before its children."""
        self.namespaces = namespaces_work() if namespaces is None else namespaces
        self._parents = parents
        self.homes = list(parents)[1:]
        """Sites where clients of a run are, in turn."""
        self._sites: dict[str, Site] = {}
        self._stack = contextlib.ExitStack()
        self._vhost = ""

    def __enter__(self) -> Sites:
        with contextlib.ExitStack() as stack:
            for name, parent in self._parents.items():
                space = Namespace() if self.namespaces else None
                if space:
                    stack.callback(space.close)
                settings = {"listeners.tcp.2": f"0.0.0.0:{AMQP_PORT}"} if space else {}
                node = PrivateNode(plugins=FEDERATION_PLUGINS, settings=settings)
                self._sites[name] = Site(name, parent, node, space)
                stack.callback(node.stop, timeout=2.0)
            with ThreadPoolExecutor(len(self._sites)) as pool:
                list(pool.map(self._start, self._sites.values()))
            for number, site in enumerate(self._sites.values()):
                if site.parent is not None:
                    site.link = self._linked(number, self._sites[site.parent], site)
                    stack.callback(site.link.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def how(self) -> str:
        """What the links are, for a report."""
        if self.namespaces:
            return "a network namespace a site, with wires between them"
        return "all sites on loopback, with TCP proxies between them"

    # -- where things are --------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The sites, the hub first."""
        return list(self._parents)

    def below(self, site: str) -> list[str]:
        """The sites whose parent this one is."""
        return [name for name, parent in self._parents.items() if parent == site]

    def link(self, site: str) -> Link:
        """From a site to its parent."""
        link = self._sites[site].link
        assert link is not None, f"{site} is the hub"
        return link

    def node(self, site: str) -> PrivateNode:
        """A site's broker. Talk to it inside its site."""
        return self._sites[site].node

    @contextlib.contextmanager
    def inside(self, site: str) -> Iterator[None]:
        """Have this thread, and what it begins, where the site's processes are."""
        with self._sites[site].inside():
            yield

    @property
    def url(self) -> str:
        """The hub's broker."""
        return self.url_of(HUB)

    def url_of(self, site: str) -> str:
        """The site's broker, for processes of the site."""
        address = parse_broker_url(self._sites[site].node.url).with_vhost(self._vhost)
        return f"{address.full}?heartbeat={_HEARTBEAT}"

    def command(self, site: str, argv: Sequence[str]) -> list[str]:
        """A command that runs ``argv`` at a site: one pid, with its broker's URL and its name."""
        space = self._sites[site].space
        told = ["env", f"FLMQ_BROKER_URL={self.url_of(site)}", f"FLMQ_SITE={site}", *argv]
        return space.command(told) if space else told

    def home(self, member: str) -> str:
        """The site of a process: of the server the hub, of clients `homes` in turn."""
        homes = self.homes
        return homes[int(member[1:]) % len(homes)] if re.fullmatch(r"c\d+", member) else HUB

    def placed(self, member: str, argv: Sequence[str]) -> list[str]:
        """The command of a run's process, at its site."""
        return self.command(self.home(member), argv)

    def call(self, site: str, method: str, path: str, body: object = None) -> object:
        """Call a broker's management API; ``{vhost}`` in ``path`` is the run's."""
        path = path.replace("{vhost}", quote(self._vhost, safe=""))
        with self.inside(site):
            return patiently(lambda: self._management(site).call(method, path, body))

    def _management(self, site: str) -> Management:
        return self._sites[site].node.management

    # -- one run -----------------------------------------------------------------------------

    def set(self) -> None:
        """Give the next run a virtual host of its own at each site, and link them."""
        self._vhost = f"run-{secrets.token_hex(4)}"
        for name in self.names:
            with self.inside(name):
                patiently(functools.partial(self._management(name).add_vhost, self._vhost))
        self.federate()
        self.until_linked()

    def federate(self) -> None:
        """Link them, as ``flmq site apply`` does at each site."""
        for name in self.names:
            federation = self._federation(name)
            with self.inside(name):
                carry_out(federation, planned(federation, {name}))

    def until_linked(self, timeout: float = 60.0) -> None:
        """Wait until every link runs."""
        deadline = time.monotonic() + timeout
        while waiting := [each for name in self.names for each in self._links_not_up(name)]:
            assert time.monotonic() < deadline, f"links that do not come up: {waiting}"
            time.sleep(0.2)

    def calm(self) -> None:
        """Mend and speed up all links, and have all brokers up."""
        for site in self._sites.values():
            if site.link is not None:
                site.link.mend()
                site.link.slow(None)
            self._start(site)

    def clear(self) -> None:
        """End every disturbance, and remove the run's virtual host."""
        self.calm()
        for name in self.names:
            with self.inside(name):
                patiently(functools.partial(self._management(name).delete_vhost, self._vhost))

    def kill(self, site: str) -> None:
        """Kill a site's broker as a crash would; `restart` brings it back."""
        with self.inside(site):
            self._sites[site].node.kill()

    def restart(self, site: str) -> None:
        """Start a broker that was killed, with its data."""
        self._start(self._sites[site])

    def depths(self, names: Sequence[str]) -> dict[str, int]:
        """Messages that are ready in each of these queues, over all sites that have it."""
        found: dict[str, int] = {}
        for site in self.names:
            with self.inside(site):
                for name, depth in queue_depths(self.url_of(site), names).items():
                    found[name] = found.get(name, 0) + depth
        return found

    def in_transit(self) -> dict[str, int]:
        """Messages in the queues of links, by site and queue: what a cut link keeps."""
        found = {}
        for site in self.names:
            queues = self.call(site, "GET", "/api/queues/{vhost}?columns=name")
            assert isinstance(queues, list)
            names = [each["name"] for each in queues if each["name"].startswith("federation:")]
            with self.inside(site):
                for name, depth in queue_depths(self.url_of(site), names).items():
                    found[f"{site} {name}"] = depth
        return found

    # -- within ------------------------------------------------------------------------------

    def _start(self, site: Site) -> None:
        with site.inside():
            try:
                site.node.start()
            except BrokerError:
                # Now and then RabbitMQ's script ends without a word so soon after a kill.
                site.node.start()

    def _linked(self, number: int, parent: Site, child: Site) -> Link:
        if parent.space is not None and child.space is not None:
            return Wire(number, parent.space, child.space)
        return ProxiedLink(parent.node.ports.amqp, child.node.ports.amqp)

    def _federation(self, seen_from: str) -> Federation:
        """All sites, with the addresses by which one of them reaches the others."""
        return Federation(
            tuple(
                FederatedSite(
                    each.name,
                    self._address(each),
                    self._link_address(each, self._sites[seen_from]),
                    each.node.management,
                    each.parent,
                )
                for each in self._sites.values()
            )
        )

    def _address(self, site: Site) -> BrokerUrl:
        return parse_broker_url(site.node.url).with_vhost(self._vhost)

    def _link_address(self, site: Site, seen_from: Site) -> BrokerUrl:
        """How one broker reaches another over their link; for others that of loopback."""
        address = replace(self._address(site), options=(("heartbeat", str(_HEARTBEAT)),))
        above = seen_from.parent == site.name
        link = seen_from.link if above else site.link if site.parent == seen_from.name else None
        if isinstance(link, Wire):
            host = link.parent_host if above else link.child_host
            return replace(address, host=host, port=AMQP_PORT)
        if isinstance(link, ProxiedLink):
            return replace(address, port=(link.to_parent if above else link.to_child).port)
        return address

    def _links_not_up(self, name: str) -> list[str]:
        federation = self._federation(name)
        with self.inside(name):
            links = list(links_to(federation, federation[name], {}, {}))
        return [str(each) for each in links if not each.running]
