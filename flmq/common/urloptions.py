"""Options in the query part of a broker URL: timeouts in seconds, and TLS files."""

from __future__ import annotations

import ssl

from flmq.common.urls import BrokerUrl, InvalidBrokerUrl

__all__ = ["seconds_of", "tls_context"]

_SECONDS = {"heartbeat", "socket_timeout", "stack_timeout"}
_FILES = ("cafile", "certfile", "keyfile")


def seconds_of(url: BrokerUrl) -> dict[str, float]:
    """Return the options that are times, in seconds.

    Raises:
        InvalidBrokerUrl: an option is unknown, or not a number.
    """
    numbers = {}
    for name, value in url.options:
        if name in _FILES and url.tls:
            continue
        if name not in _SECONDS:
            known = ", ".join(sorted(_SECONDS | set(_FILES)))
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


def tls_context(url: BrokerUrl) -> ssl.SSLContext | None:
    """Return the TLS context for the URL, or None if it does not use TLS.

    Raises:
        InvalidBrokerUrl: the named certificate files cannot be used.
    """
    if not url.tls:
        return None
    files = {name: value for name, value in url.options if name in _FILES}
    try:
        context = ssl.create_default_context(cafile=files.get("cafile"))
        if "certfile" in files:
            context.load_cert_chain(files["certfile"], files.get("keyfile"))
    except OSError as error:
        raise InvalidBrokerUrl(
            url.full, f"its certificate files cannot be used: {error}"
        ) from error
    return context
