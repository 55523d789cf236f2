"""Who takes part in a federation, and as which user of the broker: data that the file gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flmq.common.errors import UsageError
from flmq.provision.permissions import Rights
from flmq.sites.federation import Federation

__all__ = ["Limits", "Login", "Party", "Provision", "Role", "Tenant", "UnknownUser", "UserLimits"]


class UnknownUser(UsageError):
    """The file has no user of that name."""

    def __init__(self, user: str, why: str = "the file has no such user") -> None:
        """Name the ``user``."""
        self.user = user
        super().__init__(f"{user!r}: {why}; users are those of [[client]], [[server]] and so on")


class Role(StrEnum):
    """What a user of the broker is for."""

    CLIENT = "client"
    SERVER = "server"
    AGGREGATOR = "aggregator"
    OPERATOR = "operator"
    OBSERVER = "observer"
    LINK = "link"
    """Brokers of other sites, which fetch what is for them."""


class Login(StrEnum):
    """How a user shows who it is."""

    PASSWORD = "password"  # noqa: S105 - the word, not one
    CERTIFICATE = "certificate"
    """By the common name of a client certificate (SASL EXTERNAL); it has no password."""
    TOKEN = "token"  # noqa: S105 - the word, not one
    """By a token of OAuth 2, which another one checks; it has no password."""


@dataclass(frozen=True, slots=True)
class UserLimits:
    """Most of what a user may have open at once; None: as much as the broker allows."""

    connections: int | None = None
    channels: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a virtual host; None: none."""

    connections: int | None = None
    """Connections to the virtual host."""
    queues: int | None = None
    """Queues of the virtual host."""
    queue_messages: int | None = None
    """Messages in a client's queue; the oldest go beyond that, and are sent again."""
    queue_bytes: int | None = None
    """Bytes in a client's queue, likewise."""
    job_bytes: int | None = None
    """Bytes in each queue of replies and uploads; beyond that, publishers wait."""


@dataclass(frozen=True, slots=True)
class Party:
    """One user of one site's broker."""

    role: Role
    user: str
    site: str
    rights: Rights
    login: Login = Login.PASSWORD
    limits: UserLimits = UserLimits()
    client_ids: tuple[str, ...] = ()
    """The clients it speaks for."""
    tags: tuple[str, ...] = ()
    """RabbitMQ's, of persons."""
    below: tuple[str, ...] = ()
    """Sites whose aggregators send to this one."""
    password: str | None = field(default=None, repr=False)
    """What the file says itself; None: one that is made, and kept in a file."""

    @property
    def has_password_file(self) -> bool:
        """Whether its password is made here, and kept in a file."""
        return self.login is Login.PASSWORD and self.password is None


@dataclass(frozen=True, slots=True)
class Tenant:
    """One federation: its sites, each on one virtual host of its broker, and who takes part."""

    name: str
    """Empty: the only one, of a file without tenants."""
    federation: Federation
    parties: tuple[Party, ...]
    limits: Limits = Limits()

    def at(self, site: str) -> tuple[Party, ...]:
        """Return the users of the broker of ``site``."""
        return tuple(party for party in self.parties if party.site == site)

    @property
    def speakers(self) -> Mapping[str, frozenset[str]]:
        """The ids of the clients that each client's user speaks for, by its name."""
        return {
            party.user: frozenset(party.client_ids)
            for party in self.parties
            if party.role is Role.CLIENT
        }

    @property
    def aggregators(self) -> Mapping[str, str]:
        """The sites of which each aggregator's user is the aggregator, by its name."""
        return {p.user: p.site for p in self.parties if p.role is Role.AGGREGATOR}


@dataclass(frozen=True, slots=True)
class Provision:
    """All that a file asks for: tenants in its order."""

    tenants: tuple[Tenant, ...]

    def __iter__(self) -> Iterator[Tenant]:
        """Iterate over the tenants."""
        return iter(self.tenants)

    @property
    def parties(self) -> Iterator[Party]:
        """All users, a user of several sites once for each."""
        return (party for tenant in self.tenants for party in tenant.parties)

    @property
    def is_empty(self) -> bool:
        """Whether the file names nobody: it only links sites."""
        return not any(tenant.parties for tenant in self.tenants)

    def at_vhost(self, vhost: str) -> Tenant | None:
        """Return the tenant whose hub has the virtual host ``vhost``; None: there is none."""
        return next((t for t in self.tenants if t.federation.hub.vhost == vhost), None)
