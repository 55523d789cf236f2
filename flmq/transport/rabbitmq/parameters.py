"""Convert a broker URL to pika's connection parameters."""

from __future__ import annotations

import pika

from flmq.common.credentials import Login
from flmq.common.urloptions import seconds_of, server_name_of, tls_context
from flmq.common.urls import BrokerUrl

__all__ = ["DEFAULT_HEARTBEAT", "connection_parameters", "heartbeat_of"]

DEFAULT_HEARTBEAT = 60.0
"""Seconds, RabbitMQ's default. Both ends give up after about two of them without a byte; a
trainer may keep the GIL from the connection's thread for a while."""


def connection_parameters(
    url: BrokerUrl, login: Login, connection_name: str
) -> pika.ConnectionParameters:
    """Return pika's parameters; RabbitMQ's tools show ``connection_name``.

    The URL's options (docs/broker.md) are those of `flmq.common.urloptions`, besides those that
    say the ``login``. The certificate files are read now.

    Raises:
        InvalidBrokerUrl: another option, or an invalid value.
    """
    options, tls = seconds_of(url), tls_context(url)
    return pika.ConnectionParameters(
        host=url.host,
        port=url.port,
        virtual_host=url.vhost,
        credentials=(
            pika.credentials.ExternalCredentials()
            if login.external
            else pika.PlainCredentials(login.user, login.secret)
        ),
        heartbeat=round(heartbeat_of(url)),
        socket_timeout=options.get("socket_timeout", 10.0),
        stack_timeout=options.get("stack_timeout", 15.0),
        # We retry by our own policy (flmq.transport.retry); a blocked publisher just waits.
        connection_attempts=1,
        blocked_connection_timeout=None,
        ssl_options=None if tls is None else pika.SSLOptions(tls, server_name_of(url)),
        client_properties={"connection_name": connection_name, "product": "flmq"},
    )


def heartbeat_of(url: BrokerUrl) -> float:
    """Return the seconds between heartbeats; 0 if there are none."""
    return seconds_of(url).get("heartbeat", DEFAULT_HEARTBEAT)
