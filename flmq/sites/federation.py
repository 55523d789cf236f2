"""The sites of a federation and the links between them, as data.

Sites form a tree: the hub, to which servers connect, is its root, and every other site has a parent
to whose broker it is linked. See docs/datacenters.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flmq.broker.management import Management
from flmq.common.errors import UsageError
from flmq.common.urls import BrokerUrl

__all__ = ["Federation", "LinkOptions", "Site", "UnknownSite"]


class UnknownSite(UsageError):
    """A federation has no site of that name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        """Name the site asked for and those that there are."""
        self.name = name
        super().__init__(f"there is no site {name!r}: the file has {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How messages cross the links between a site and its parent."""

    prefetch: int = 8
    """Messages under way at once in each link; a chunk of a model has 1 MiB."""
    expires: int = 7 * 24 * 3600
    """Seconds after which what waits for a link that is down is given up: a day or more."""


@dataclass(frozen=True, slots=True)
class Site:
    """One datacenter: its broker, and its place in the tree."""

    name: str
    url: BrokerUrl
    """Where its clients, or the federation's servers, connect."""
    link_url: BrokerUrl
    """Where other brokers connect for links; its options are RabbitMQ's."""
    management: Management
    """The management API of its broker."""
    parent: str | None = None
    """None: it is the hub."""
    parent_url: BrokerUrl | None = None
    """Where its own broker reaches the parent's; None: where all others do."""
    link: LinkOptions = LinkOptions()

    @property
    def vhost(self) -> str:
        """The virtual host of the federation on its broker."""
        return self.url.vhost


@dataclass(frozen=True, slots=True)
class Federation:
    """Sites that form a tree, in the order of their file."""

    sites: tuple[Site, ...]

    def __iter__(self) -> Iterator[Site]:
        """Iterate over the sites."""
        return iter(self.sites)

    def __getitem__(self, name: str) -> Site:
        """Return the site called ``name``.

        Raises:
            UnknownSite: there is none.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise UnknownSite(name, tuple(site.name for site in self.sites))

    @property
    def hub(self) -> Site:
        """The site without a parent."""
        return next(site for site in self.sites if site.parent is None)

    def children(self, name: str) -> tuple[Site, ...]:
        """Return the sites whose parent is ``name``."""
        return tuple(site for site in self.sites if site.parent == name)

    def neighbours(self, name: str) -> tuple[Site, ...]:
        """Return the sites to which ``name`` is linked: its parent, if it has one, and children."""
        parent = self[name].parent
        above = () if parent is None else (self[parent],)
        return above + self.children(name)

    @property
    def depth(self) -> int:
        """Links between the hub and the site that is farthest from it; 1 or more."""
        return max(1, max(self._storey(site) for site in self.sites))

    def without(self, name: str) -> Federation:
        """Return the same federation without the site ``name``, which has no children."""
        return Federation(tuple(site for site in self.sites if site.name != name))

    def at_vhost(self, vhost: str) -> Federation:
        """Return the same sites, each on the virtual host ``vhost`` of its broker."""
        return Federation(
            tuple(
                replace(
                    site, url=site.url.with_vhost(vhost), link_url=site.link_url.with_vhost(vhost)
                )
                for site in self.sites
            )
        )

    def _storey(self, site: Site) -> int:
        return 0 if site.parent is None else 1 + self._storey(self[site.parent])
