"""Ask a broker for its properties: log in, read the answer, log out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pika
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from flmq.common.credentials import login_of
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerRefusal,
    BrokerUnavailable,
    TooManyConnections,
)
from flmq.common.failure_text import error_text
from flmq.common.login_objections import login_objection
from flmq.common.urloptions import seconds_of, server_name_of, tls_context
from flmq.common.urls import BrokerUrl

__all__ = ["BrokerFacts", "ask_broker", "queue_depths"]

_PROVISIONED = "flmq.provisioned"
_NEEDED = ("basic.nack", "publisher_confirms", "consumer_cancel_notify", "connection.blocked")


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What a broker reports at login."""

    product: str
    version: str
    cluster: str
    missing: tuple[str, ...]
    """The protocol extensions that flmq needs but the broker lacks."""
    can_declare: bool | None
    """Whether this login may declare a queue; None if not tried."""
    alarm: str = ""
    """The broker's reason for blocking publishers; empty if it does not, or if not tried."""
    provisioned: bool = False
    """Whether `flmq provision` made what stands on the virtual host; False too if not tried."""


def ask_broker(url: BrokerUrl, *, timeout: float = 5.0, declare: bool = False) -> BrokerFacts:
    """Log in at ``url``, within about ``timeout`` seconds, and return what the broker reports.

    With ``declare``, also declare an exclusive trial queue, deleted at once, and send an empty
    message through it.

    Raises:
        BrokerUnavailable: nobody answers there.
        BrokerAccessRefused: the login or the virtual host is refused.
        BrokerRefusal: what answers does not speak AMQP 0-9-1.
    """
    with _translated(url), _quiet_pika():
        connection = pika.BlockingConnection(_parameters(url, timeout))
        try:
            facts = _facts(connection._impl.server_properties or {})
            if not declare:
                return facts
            facts = replace(facts, provisioned=_is_provisioned(connection))
            return _with_trial(facts, connection, timeout)
        finally:
            # A broker that blocks a publisher reads nothing from it, not even its goodbye.
            with contextlib.suppress(AMQPError):
                if connection.is_open:
                    connection.close()


def queue_depths(
    url: BrokerUrl, names: Sequence[str], *, timeout: float = 5.0
) -> list[tuple[str, int, int]]:
    """Return of those queues of ``names`` that are there name, messages ready, and consumers.

    Asked by passive declarations, which need no permission. Raises as `ask_broker` does.
    """
    found: list[tuple[str, int, int]] = []
    with _translated(url), _quiet_pika():
        connection = pika.BlockingConnection(_parameters(url, timeout))
        try:
            channel = connection.channel()
            for name in names:
                try:
                    told = channel.queue_declare(name, passive=True).method
                    found.append((name, told.message_count, told.consumer_count))
                except pika.exceptions.ChannelClosedByBroker:  # there is none, or not for us
                    channel = connection.channel()
        finally:
            with contextlib.suppress(AMQPError):
                if connection.is_open:
                    connection.close()
    return found


def _parameters(url: BrokerUrl, timeout: float) -> pika.ConnectionParameters:
    # Do not use pika's URLParameters, which accepts other options.
    seconds_of(url)
    tls, login = tls_context(url), login_of(url)
    return pika.ConnectionParameters(
        host=url.host,
        port=url.port,
        virtual_host=url.vhost,
        credentials=(
            pika.credentials.ExternalCredentials()
            if login.external
            else pika.PlainCredentials(login.user, login.secret)
        ),
        socket_timeout=timeout,
        stack_timeout=2 * timeout,
        blocked_connection_timeout=timeout,
        connection_attempts=1,
        ssl_options=None if tls is None else pika.SSLOptions(tls, server_name_of(url)),
    )


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


def _is_provisioned(connection: pika.BlockingConnection) -> bool:
    """Return whether the exchange is there that is made last; asking takes no permission."""
    try:
        connection.channel().exchange_declare(_PROVISIONED, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    return True


def _with_trial(
    facts: BrokerFacts, connection: pika.BlockingConnection, timeout: float
) -> BrokerFacts:
    """Declare a queue and publish: only a publisher is told that the broker blocks publishers."""
    alarms: list[str] = []
    connection.add_on_connection_blocked_callback(
        lambda _, frame: alarms.append(_text(frame.method.reason))
    )
    came: list[object] = []
    try:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
    except pika.exceptions.ChannelClosedByBroker:
        return replace(facts, can_declare=False)
    try:
        channel.basic_consume(queue, lambda *delivery: came.append(delivery), auto_ack=True)
        channel.basic_publish("", queue, b"")
        deadline = time.monotonic() + timeout
        while not came and not alarms and time.monotonic() < deadline:
            connection.process_data_events(0.1)
            if not channel.is_open:
                break
    except pika.exceptions.ChannelClosedByBroker:
        pass  # without write permission, alarms cannot be seen
    return replace(facts, can_declare=True, alarm=alarms[0] if alarms else "")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


@contextlib.contextmanager
def _translated(url: BrokerUrl) -> Iterator[None]:
    try:
        yield
    except ProbableAuthenticationError as error:
        _raise_objection(error, url)
        raise BrokerAccessRefused(
            f"the broker at {url} refuses the login of user {url.user!r}: check name and password "
            f"(its administrator sets one: rabbitmqctl change_password {url.user} NEW)"
        ) from error
    except ProbableAccessDeniedError as error:
        if "limit" in str(error):
            raise TooManyConnections(
                f"the broker at {url} takes no further connections ({_reason(error)}): raise the "
                f"limit (rabbitmqctl set_user_limits {url.user} '{{\"max-connections\": N}}', or "
                f"set_vhost_limits -p {url.vhost}); each flmq process needs three"
            ) from error
        raise BrokerAccessRefused(
            f"the broker at {url} refuses user {url.user!r} on virtual host {url.vhost!r}: it does "
            f"not exist or the user has no permission there (rabbitmqctl add_vhost {url.vhost}; "
            f"rabbitmqctl set_permissions -p {url.vhost} {url.user} '.*' '.*' '.*')"
        ) from error
    except pika.exceptions.IncompatibleProtocolError as error:
        _raise_objection(error, url)
        raise BrokerRefusal(
            f"what answers at {url} does not speak AMQP 0-9-1: check host and port"
        ) from error
    except (AMQPConnectionError, OSError) as error:
        _raise_objection(error, url)
        raise BrokerUnavailable(f"no broker answers at {url}: {_reason(error)}") from error
    except AMQPError as error:
        raise BrokerUnavailable(f"the broker at {url} broke off: {_reason(error)}") from error


def _raise_objection(error: BaseException, url: BrokerUrl) -> None:
    """Raise what there is to say about TLS or the login, if anything."""
    if (objection := login_objection(repr(_root(error)), url)) is not None:
        raise objection from error


def _reason(error: BaseException) -> str:
    """Return the innermost cause that pika reports, in a few words."""
    return error_text(_root(error))


def _root(error: BaseException) -> BaseException:
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = getattr(error, "exception", None) or inner or error.__cause__ or error
    return error


@contextlib.contextmanager
def _quiet_pika() -> Iterator[None]:
    """Suppress pika's own log of a failed login, which is several lines."""
    logger = logging.getLogger("pika")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
