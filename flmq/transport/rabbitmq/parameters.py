"""From a broker URL to pika's connection parameters."""

from __future__ import annotations

import ssl
from typing import Any

import pika

from flmq.common.urls import BrokerUrl, InvalidBrokerUrl

__all__ = ["DEFAULT_HEARTBEAT", "connection_parameters", "heartbeat_of"]

DEFAULT_HEARTBEAT = 60.0
"""Seconds, RabbitMQ's default. Both ends give up after about two of them without a byte; a
trainer may keep the GIL from the connection's thread for a while."""

_NUMBERS = {"heartbeat", "socket_timeout", "stack_timeout"}
_FILES = ("cafile", "certfile", "keyfile")


def connection_parameters(url: BrokerUrl, connection_name: str) -> pika.ConnectionParameters:
    """Build what pika needs; ``connection_name`` is shown by RabbitMQ's tools.

    The URL's options: ``heartbeat``, ``socket_timeout``, ``stack_timeout`` (seconds), and for
    amqps ``cafile``, ``certfile``, ``keyfile``. Raises `InvalidBrokerUrl` for others.
    """
    options = _options(url)
    return pika.ConnectionParameters(
        host=url.host,
        port=url.port,
        virtual_host=url.vhost,
        credentials=pika.PlainCredentials(url.user, url.password),
        heartbeat=round(heartbeat_of(url)),
        socket_timeout=options.get("socket_timeout", 10.0),
        stack_timeout=options.get("stack_timeout", 15.0),
        # Our own policy retries (flmq.transport.retry); a blocked publisher waits it out.
        connection_attempts=1,
        blocked_connection_timeout=None,
        ssl_options=_tls(url) if url.tls else None,
        client_properties={"connection_name": connection_name, "product": "flmq"},
    )


def heartbeat_of(url: BrokerUrl) -> float:
    """Seconds between heartbeats; 0: none."""
    return _options(url).get("heartbeat", DEFAULT_HEARTBEAT)


def _options(url: BrokerUrl) -> dict[str, float]:
    numbers = {}
    for name, value in url.options:
        if name in _FILES and url.tls:
            continue
        if name not in _NUMBERS:
            known = ", ".join(sorted(_NUMBERS | set(_FILES)))
            raise InvalidBrokerUrl(
                url.full,
                f"option {name!r} is not known; use {known} (the files with amqps only)",
            )
        try:
            numbers[name] = float(value)
        except ValueError:
            raise InvalidBrokerUrl(
                url.full, f"option {name!r} is not a number of seconds"
            ) from None
    return numbers


def _tls(url: BrokerUrl) -> pika.SSLOptions:
    files: dict[str, Any] = {name: value for name, value in url.options if name in _FILES}
    try:
        context = ssl.create_default_context(cafile=files.get("cafile"))
        if "certfile" in files:
            context.load_cert_chain(files["certfile"], files.get("keyfile"))
    except OSError as error:
        raise InvalidBrokerUrl(
            url.full, f"its certificate files cannot be used: {error}"
        ) from error
    return pika.SSLOptions(context, url.host)
