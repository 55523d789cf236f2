"""Broker URLs: parse, check, and show without passwords.

The form is RabbitMQ's (https://www.rabbitmq.com/docs/uri-spec):
``amqp://user:password@host:port/vhost``, ``amqps`` for TLS; the defaults are ``guest``, ``guest``,
``localhost``, 5672 (5671 with TLS) and ``/``. As in pika, and unlike on that page, a path of ``/``
alone means the virtual host ``/``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from flmq.common.errors import UsageError

__all__ = ["BrokerUrl", "InvalidBrokerUrl", "parse_broker_url", "redact_url"]

_PORTS = {"amqp": 5672, "amqps": 5671}
_EXAMPLE = "amqp://user:password@host:5672/vhost"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLAIN = re.compile(r"[A-Za-z0-9+.-]*(://)?[A-Za-z0-9.-]*(:\d{1,5})?(/[A-Za-z0-9._%-]*)?")


class InvalidBrokerUrl(UsageError):
    """A broker URL cannot be used; the message shows it without its password."""

    def __init__(self, url: str, reason: str) -> None:
        """Set the redacted URL and the ``reason``, which must not quote the URL itself."""
        self.url = redact_url(url)
        self.reason = reason
        super().__init__(
            f"broker URL {self.url!r} is not usable: {reason} (the form is {_EXAMPLE})"
        )


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """A parsed broker URL: scheme, credentials, host, port, virtual host and options."""

    host: str = "localhost"
    port: int = 5672
    vhost: str = "/"
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    tls: bool = False
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The decoded query part: options for the client library (``heartbeat``, ...)."""

    def __str__(self) -> str:
        """Return the URL without password and options, safe for logs and messages."""
        if ("auth", "external") in self.options and self.user == "guest":
            return f"{self._scheme}://{self._place}"  # a certificate says who it is
        return f"{self._scheme}://{quote(self.user, safe='')}:***@{self._place}"

    @property
    def full(self) -> str:
        """The whole URL, password included: for connecting, never for showing."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self._scheme}://{login}@{self._place}{query}"

    def with_vhost(self, vhost: str) -> Self:
        """Return the same login on another virtual host of that broker."""
        return type(self)(
            self.host, self.port, vhost, self.user, self.password, self.tls, self.options
        )

    @property
    def _scheme(self) -> str:
        return "amqps" if self.tls else "amqp"

    @property
    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{quote(self.vhost, safe='')}"


def parse_broker_url(url: str) -> BrokerUrl:
    """Parse ``url``.

    Raises:
        InvalidBrokerUrl: it cannot be used; says why.
    """
    reason = _objection(url)
    if reason is None:
        parsed = _parse(url)
        if isinstance(parsed, BrokerUrl):
            return parsed
        reason = parsed
    raise InvalidBrokerUrl(url, reason)


def redact_url(url: str) -> str:
    """Return ``url`` without password and options, nor anything that might be part of them."""
    parsed = _parse(url) if _objection(url) is None else None
    if isinstance(parsed, BrokerUrl):
        return str(parsed)
    scheme, found, rest = url.partition("://")
    shown = f"{scheme}://" if found and scheme.isalnum() else ""
    if "@" in url:
        host = re.match(r"[A-Za-z0-9.\[\]:-]*", rest.rpartition("@")[2] if found else "")
        return f"{shown}***@{host.group() if host else ''}"
    return url if _PLAIN.fullmatch(url) else f"{shown}***"


def _objection(url: str) -> str | None:
    """Return what is wrong with the text before it is parsed, or None."""
    if not url:
        return "it is empty"
    if any(character.isspace() or not character.isprintable() for character in url):
        return "it contains spaces or control characters; write them as %20 and the like"
    if "#" in url:
        return "it contains '#'; write it as %23"
    if _BAD_ESCAPE.search(url):
        return "it has a '%' that two hexadecimal digits do not follow; write '%' itself as %25"
    scheme, found, _ = url.partition("://")
    if scheme not in _PORTS or not found:
        return "it must begin with amqp:// or amqps://"
    return None


def _parse(url: str) -> BrokerUrl | str:
    """Return the parsed URL, or the reason why it cannot be parsed."""
    escape = "write '@', ':', '/' in a user name or password as %40, %3A, %2F"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"host or port cannot be read; the port is a number up to 65535, and {escape}"
    login, _, place = parts.netloc.rpartition("@")
    if "@" in login or login.count(":") > 1:
        return f"user name and password cannot be told apart; {escape}"
    if port == 0 or place.endswith(":"):
        return "the port is a number from 1 to 65535"
    if not host and place:
        return "the host is missing"
    path = parts.path.removeprefix("/")
    if "/" in path:
        return "its virtual host contains '/'; write it as %2F"
    user, has_password, password = login.partition(":")
    return BrokerUrl(
        host=host or "localhost",
        port=port or _PORTS[parts.scheme],
        vhost=unquote(path) or "/",
        user=unquote(user) or "guest",
        password=unquote(password) if has_password or user else "guest",
        tls=parts.scheme == "amqps",
        options=tuple(parse_qsl(parts.query, keep_blank_values=True)),
    )
