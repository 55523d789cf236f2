"""Read federation.toml: check every key, and make a `Federation` of it.

A secret does not stand in the file: ``${NAME}`` takes it, or a whole URL, from the environment, and
``password_file`` from a file. Every objection names the file, the key, and what to write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from flmq.broker.management import management_of
from flmq.common.errors import FlmqError
from flmq.common.urls import BrokerUrl, InvalidBrokerUrl, parse_broker_url
from flmq.sites.federation import Federation, LinkOptions, Site
from flmq.sites.tables import VARIABLE, InvalidFederation, Table, hint, read_tables

__all__ = ["TOP_KEYS", "InvalidFederation", "federation_of", "read_federation", "tenants_of"]

TOP_KEYS = (
    "links", "site", "tenant", "client", "server", "aggregator", "link", "operator", "limits",
)  # fmt: skip
"""The tables of a file; those after the sites are `flmq.provision.reading`'s."""
_TENANT_KEYS = ("name", "vhost", "limits")
_SITE_KEYS = (
    "name", "parent", "parent_url", "url", "link_url", "management_url", "vhost", "password_file",
    "link",
)  # fmt: skip
_LINK_KEYS = ("prefetch", "expires_days")
_PREFETCH = range(1, 257)
_EXPIRES_DAYS = range(1, 366)
_DAY = 24 * 3600
_LOGIN = re.compile(r"[a-z]+://([^/@:]*)(?::([^/@]*))?@")


def read_federation(
    file: Path, environ: Mapping[str, str] | None = None, *, vhost: str | None = None
) -> Federation:
    """Read ``file``; ``${NAME}`` in it comes from ``environ``, the process's unless given.

    Where it has several tenants, ``vhost`` says whose federation is meant.

    Raises:
        InvalidFederation: it cannot be read, or does not describe a tree of sites; or it is not
            known which tenant is meant.
    """
    top = read_tables(file, environ)
    federation = federation_of(top)
    tenants = tenants_of(top)
    if not tenants:
        return federation
    if len(tenants) == 1 and vhost is None:
        (vhost,) = tenants.values()
    if vhost is None or vhost not in tenants.values():
        known = ", ".join(tenants.values())
        raise top.objection(
            "tenant",
            f"has the virtual hosts {known}: connect to one of them; the links of all are made "
            "and looked at by `flmq provision` and `flmq provision check`",
        )
    return federation.at_vhost(vhost)


def federation_of(top: Table) -> Federation:
    """Return the sites of a whole file, each on the virtual host that its URL names.

    Raises:
        InvalidFederation: they are no tree.
    """
    top.check_keys(TOP_KEYS)
    links = _link_options(top.table("links"), LinkOptions())
    sites = tuple(_site(table, links) for table in top.tables("site", some=True))
    _check_tree(top.file, sites)
    return Federation(sites)


def tenants_of(top: Table) -> dict[str, str]:
    """Return the virtual hosts of the tenants of a file, by their names.

    Raises:
        InvalidFederation: one has no name, or two are the same.
    """
    tenants: dict[str, str] = {}
    for table in top.tables("tenant"):
        table.check_keys(_TENANT_KEYS)
        name = table.name("name")
        if name is None:
            raise table.objection("name", "is missing: give the tenant a name")
        vhost = table.text("vhost") or name
        if name in tenants:
            raise table.objection("name", "another tenant has this name: rename one of them")
        if vhost in tenants.values():
            raise table.objection(
                "vhost", f"is {vhost!r}, as another tenant's: a tenant has a virtual host alone"
            )
        tenants[name] = vhost
    return tenants


def _link_options(table: Table, default: LinkOptions) -> LinkOptions:
    table.check_keys(_LINK_KEYS)
    days = table.number("expires_days", default.expires // _DAY, _EXPIRES_DAYS)
    prefetch = table.number("prefetch", default.prefetch, _PREFETCH)
    return LinkOptions(prefetch, days * _DAY)


def _site(table: Table, links: LinkOptions) -> Site:
    table.check_keys(_SITE_KEYS)
    name = table.name("name")
    if name is None:
        raise table.objection("name", "is missing: give the site a name")
    password = _password(table)
    url = _broker_url(table, "url", password)
    if url is None:
        raise table.objection("url", "is missing: write where clients of the site connect")
    vhost = table.text("vhost")
    if vhost is not None:
        url = url.with_vhost(vhost)
    link_url = _broker_url(table, "link_url", password)
    if link_url is None:
        # flmq's own options name files of another machine than the broker at the link's other end.
        link_url = replace(url, options=())
    management_url = _management_url(table, password)
    try:
        management = management_of(url, management_url)
    except FlmqError as error:
        raise table.objection("url", f"cannot be used: {error}") from error
    return Site(
        name,
        url,
        link_url.with_vhost(url.vhost),
        management,
        _parent(table),
        _broker_url(table, "parent_url", None),
        _link_options(table.table("link"), links),
    )


def _parent(table: Table) -> str | None:
    parent = table.name("parent")
    if parent is None and table.has("parent_url"):
        raise table.objection("parent_url", "needs a parent: name one, or leave it out at the hub")
    return parent


def _password(table: Table) -> str | None:
    """Return the first line of the site's password file; None: it names none."""
    name = table.text("password_file")
    if name is None:
        return None
    file = table.file.parent / name
    try:
        read = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise table.objection("password_file", f"{file} cannot be read ({error})") from error
    if not read or "\n" in read:
        raise table.objection("password_file", f"{file} must hold one line: the password")
    return read


def _broker_url(table: Table, key: str, password: str | None) -> BrokerUrl | None:
    text = table.text(key, quoted=True)
    if text is None:
        return None
    lacks_password = _lacks_password(table, key)
    try:
        url = parse_broker_url(text)
    except InvalidBrokerUrl as error:
        raise table.objection(key, str(error)) from error
    return replace(url, password=password) if password and lacks_password else url


def _management_url(table: Table, password: str | None) -> str | None:
    key = "management_url"
    text = table.text(key, quoted=True)
    if text is None:
        return None
    lacks_password = _lacks_password(table, key)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.path not in ("", "/") or parts.query:
        raise table.objection(key, "is not usable: write http://host:15672, or https://")
    if lacks_password and parts.username and not parts.password:
        secret = quote(password or "", safe="")
        return f"{parts.scheme}://{parts.username}:{secret}@{parts.netloc.rpartition('@')[2]}"
    return text


def _lacks_password(table: Table, key: str) -> bool:
    """Return whether a URL in the file names a user alone, or nobody.

    Raises:
        InvalidFederation: it has a password in clear.
    """
    written = table.written(key)
    login = _LOGIN.match(written)
    if login is None:
        return "${" not in written
    if login[2] and VARIABLE.fullmatch(login[2]) is None:
        raise table.objection(
            key,
            "has a password in clear: write ${NAME} there, which is read from the environment, or "
            "leave it out and name a password_file",
        )
    return login[2] is None


def _check_tree(file: Path, sites: tuple[Site, ...]) -> None:
    by_name: dict[str, Site] = {}
    places: dict[tuple[str, int, str], str] = {}
    for site in sites:
        key = f"site {site.name!r}.name"
        if site.name in by_name:
            raise InvalidFederation(file, key, "another site has this name: rename one of them")
        by_name[site.name] = site
        place = site.link_url.host, site.link_url.port, site.vhost
        if place in places:
            raise InvalidFederation(
                file,
                f"site {site.name!r}.url",
                f"is that of site {places[place]!r}: a site is a broker, or a virtual host, of "
                "its own",
            )
        places[place] = site.name
    _check_parents(file, by_name)


def _check_parents(file: Path, sites: Mapping[str, Site]) -> None:
    hubs = [site.name for site in sites.values() if site.parent is None]
    for site in sites.values():
        if site.parent is not None and site.parent not in sites:
            raise InvalidFederation(
                file,
                f"site {site.name!r}.parent",
                f"there is no site {site.parent!r}; {hint(site.parent, sites)}",
            )
    if len(hubs) > 1:
        raise InvalidFederation(
            file,
            f"site {hubs[1]!r}.parent",
            f"is missing: {hubs[0]!r} has none and is the hub; only one site may be",
        )
    for site in sites.values():
        seen = [site.name]
        while (parent := sites[seen[-1]].parent) is not None:
            if parent in seen:
                raise InvalidFederation(
                    file,
                    f"site {site.name!r}.parent",
                    f"goes in a circle: {' -> '.join([*seen, parent])}; one site is the hub and "
                    "has no parent",
                )
            seen.append(parent)
