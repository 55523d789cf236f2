"""Read federation.toml: check every key, and make a `Federation` of it.

A secret does not stand in the file: ``${NAME}`` takes it, or a whole URL, from the environment, and
``password_file`` from a file. Every objection names the file, the key, and what to write.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from flmq.broker.management import management_of
from flmq.common.errors import UsageError
from flmq.common.names import MAX_NAME_LENGTH, is_name
from flmq.common.urls import BrokerUrl, InvalidBrokerUrl, parse_broker_url
from flmq.sites.federation import Federation, LinkOptions, Site

__all__ = ["InvalidFederation", "read_federation"]

_TOP_KEYS = ("links", "site")
_SITE_KEYS = (
    "name", "parent", "parent_url", "url", "link_url", "management_url", "vhost", "password_file",
    "link",
)  # fmt: skip
_LINK_KEYS = ("prefetch", "expires_days")
_PREFETCH = range(1, 257)
_EXPIRES_DAYS = range(1, 366)
_DAY = 24 * 3600
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LOGIN = re.compile(r"[a-z]+://([^/@:]*)(?::([^/@]*))?@")


class InvalidFederation(UsageError):
    """A file of sites cannot be used."""

    def __init__(self, file: Path, key: str, objection: str) -> None:
        """Name the ``file`` and the ``key`` in it; ``objection`` says what to write."""
        self.file = file
        self.key = key
        super().__init__(f"{file}: {key + ': ' if key else ''}{objection}")


def read_federation(file: Path, environ: Mapping[str, str] | None = None) -> Federation:
    """Read ``file``; ``${NAME}`` in it comes from ``environ``, the process's unless given.

    Raises:
        InvalidFederation: it cannot be read, or does not describe a tree of sites.
    """
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFederation(file, "", f"cannot be read ({error})") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidFederation(file, "", f"is not TOML: {error}") from error
    top = _Table(file, "", tables, os.environ if environ is None else environ)
    top.check_keys(_TOP_KEYS)
    links = _link_options(top.table("links"), LinkOptions())
    sites = tuple(_site(table, links) for table in top.tables("site"))
    _check_tree(file, sites)
    return Federation(sites)


class _Table:
    """One table of the file, which knows where it stands in it."""

    def __init__(
        self, file: Path, where: str, values: Mapping[str, Any], environ: Mapping[str, str]
    ) -> None:
        self.file = file
        self.where = where
        self._values = values
        self._environ = environ

    def key(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def objection(self, name: str, text: str) -> InvalidFederation:
        return InvalidFederation(self.file, self.key(name), text)

    def check_keys(self, known: Collection[str]) -> None:
        for name in self._values:
            if name not in known:
                raise self.objection(name, f"unknown key; {_hint(name, known)}")

    def has(self, name: str) -> bool:
        return name in self._values

    def table(self, name: str) -> Self:
        found = self._values.get(name, {})
        if not isinstance(found, dict):
            raise self.objection(name, f"must be a table: [{self.key(name)}]")
        return self._inner(self.key(name), found)

    def tables(self, name: str) -> list[Self]:
        found = self._values.get(name, [])
        if not (isinstance(found, list) and all(isinstance(each, dict) for each in found)):
            raise self.objection(name, f"write a table [[{name}]] for each")
        if not found:
            raise self.objection(name, f"names none: write a table [[{name}]] for each")
        return [
            self._inner(f"{name} {each.get('name', number)!r}", each)
            for number, each in enumerate(found, 1)
        ]

    def number(self, name: str, default: int, allowed: range) -> int:
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
            raise self.objection(
                name, f"is {value!r}: give a whole number, {allowed[0]} to {allowed[-1]}"
            )
        return value

    def text(self, name: str, *, quoted: bool = False) -> str | None:
        """Return a text with its variables, each ``quoted`` if it is only a part of a URL."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise self.objection(name, 'must be a text in quotes: "..."')
        whole = _VARIABLE.fullmatch(value) is not None

        def resolved(found: re.Match[str]) -> str:
            variable = found[1]
            if variable not in self._environ:
                raise self.objection(name, f"the environment has no {variable}: set it")
            read = self._environ[variable]
            return quote(read, safe="") if quoted and not whole else read

        return _VARIABLE.sub(resolved, value)

    def name(self, key: str) -> str | None:
        value = self.text(key)
        if value is not None and not is_name(value):
            raise self.objection(
                key,
                f"{value[:80]!r} is no name of a site: choose 1 to {MAX_NAME_LENGTH} characters "
                "of A-Z, a-z, 0-9, '_' and '-'",
            )
        return value

    def written(self, name: str) -> str:
        """Return a text as it stands in the file, with its variables."""
        return str(self._values.get(name, ""))

    def _inner(self, where: str, values: Mapping[str, Any]) -> Self:
        return type(self)(self.file, where, values, self._environ)


def _link_options(table: _Table, default: LinkOptions) -> LinkOptions:
    table.check_keys(_LINK_KEYS)
    days = table.number("expires_days", default.expires // _DAY, _EXPIRES_DAYS)
    prefetch = table.number("prefetch", default.prefetch, _PREFETCH)
    return LinkOptions(prefetch, days * _DAY)


def _site(table: _Table, links: LinkOptions) -> Site:
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
    try:
        management = management_of(url, _management_url(table, password))
    except OSError as error:
        file = dict(url.options).get("cafile")
        raise table.objection("url", f"its cafile {file} cannot be used ({error})") from error
    return Site(
        name,
        url,
        link_url.with_vhost(url.vhost),
        management,
        _parent(table),
        _broker_url(table, "parent_url", None),
        _link_options(table.table("link"), links),
    )


def _parent(table: _Table) -> str | None:
    parent = table.name("parent")
    if parent is None and table.has("parent_url"):
        raise table.objection("parent_url", "needs a parent: name one, or leave it out at the hub")
    return parent


def _password(table: _Table) -> str | None:
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


def _broker_url(table: _Table, key: str, password: str | None) -> BrokerUrl | None:
    text = table.text(key, quoted=True)
    if text is None:
        return None
    lacks_password = _lacks_password(table, key)
    try:
        url = parse_broker_url(text)
    except InvalidBrokerUrl as error:
        raise table.objection(key, str(error)) from error
    return replace(url, password=password) if password and lacks_password else url


def _management_url(table: _Table, password: str | None) -> str | None:
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


def _lacks_password(table: _Table, key: str) -> bool:
    """Return whether a URL in the file names a user alone, or nobody.

    Raises:
        InvalidFederation: it has a password in clear.
    """
    written = table.written(key)
    login = _LOGIN.match(written)
    if login is None:
        return "${" not in written
    if login[2] and _VARIABLE.fullmatch(login[2]) is None:
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
                f"there is no site {site.parent!r}; {_hint(site.parent, sites)}",
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


def _hint(unknown: str, known: Collection[str]) -> str:
    """Return which of the ``known`` names was meant, or all of them."""
    near = difflib.get_close_matches(unknown, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
