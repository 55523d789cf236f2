"""Asking a broker who it is: one login, its answer, and out again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pika
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from flmq.common.errors import BrokerAccessRefused, BrokerRefusal, BrokerUnavailable
from flmq.common.urls import BrokerUrl

__all__ = ["BrokerFacts", "ask_broker"]

_NEEDED = ("basic.nack", "publisher_confirms", "consumer_cancel_notify", "connection.blocked")


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What a broker says of itself at login."""

    product: str
    version: str
    cluster: str
    missing: tuple[str, ...]
    """Of the protocol extensions that flmq needs, those it does not offer."""
    can_declare: bool | None
    """Whether this login may declare a queue; None: not tried."""


def ask_broker(url: BrokerUrl, *, timeout: float = 5.0, declare: bool = False) -> BrokerFacts:
    """Log in at ``url``, within some ``timeout`` seconds, and return what the broker says.

    With ``declare`` a queue is declared as a trial, exclusive and thus gone at once.
    Raises `BrokerUnavailable` when nobody answers there, `BrokerAccessRefused` when the login or
    the virtual host is refused, `BrokerRefusal` when what answers does not speak AMQP 0-9-1.
    """
    with _translated(url), _quiet_pika():
        connection = pika.BlockingConnection(_parameters(url, timeout))
        try:
            facts = _facts(connection._impl.server_properties or {})
            return facts if not declare else _with_trial(facts, connection)
        finally:
            if connection.is_open:
                connection.close()


def _parameters(url: BrokerUrl, timeout: float) -> pika.URLParameters:
    parameters = pika.URLParameters(url.full)
    parameters.socket_timeout = timeout
    parameters.stack_timeout = 2 * timeout
    parameters.blocked_connection_timeout = timeout
    parameters.connection_attempts = 1
    return parameters


def _facts(properties: dict[str, object]) -> BrokerFacts:
    offered = properties.get("capabilities")
    capabilities = offered if isinstance(offered, dict) else {}
    return BrokerFacts(
        product=_text(properties.get("product")),
        version=_text(properties.get("version")),
        cluster=_text(properties.get("cluster_name")),
        missing=tuple(name for name in _NEEDED if not capabilities.get(name)),
        can_declare=None,
    )


def _with_trial(facts: BrokerFacts, connection: pika.BlockingConnection) -> BrokerFacts:
    try:
        channel = connection.channel()
        channel.queue_declare("", exclusive=True, auto_delete=True)
        allowed = True
    except pika.exceptions.ChannelClosedByBroker:
        allowed = False
    return BrokerFacts(facts.product, facts.version, facts.cluster, facts.missing, allowed)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


@contextlib.contextmanager
def _translated(url: BrokerUrl) -> Iterator[None]:
    try:
        yield
    except ProbableAuthenticationError as error:
        raise BrokerAccessRefused(
            f"the broker at {url} refuses the login of user {url.user!r}: check name and password"
        ) from error
    except ProbableAccessDeniedError as error:
        raise BrokerAccessRefused(
            f"the broker at {url} refuses user {url.user!r} on virtual host {url.vhost!r}: it does "
            f"not exist or the user has no permission there (rabbitmqctl add_vhost {url.vhost}; "
            f"rabbitmqctl set_permissions -p {url.vhost} {url.user} '.*' '.*' '.*')"
        ) from error
    except pika.exceptions.IncompatibleProtocolError as error:
        if "ConnectionReset" in str(error):
            raise BrokerUnavailable(f"the broker at {url} broke off the login: {error}") from error
        raise BrokerRefusal(
            f"what answers at {url} does not speak AMQP 0-9-1: check host and port"
            + ("" if url.tls else ", and whether it wants amqps://")
        ) from error
    except (AMQPConnectionError, OSError) as error:
        raise BrokerUnavailable(f"no broker answers at {url}: {_reason(error)}") from error
    except AMQPError as error:
        raise BrokerUnavailable(f"the broker at {url} broke off: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The innermost cause that pika knows of, in a few words."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = getattr(error, "exception", None) or inner or error.__cause__ or error
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _quiet_pika() -> Iterator[None]:
    """Keep pika's own account of a failed login, several lines of it, from the user's terminal."""
    logger = logging.getLogger("pika")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
