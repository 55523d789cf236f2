"""Options in the query part of a broker URL: timeouts in seconds, TLS, and how to log in."""

from __future__ import annotations

import ssl
from pathlib import Path

from flmq.common.credentials import LOGIN_OPTIONS, check_login
from flmq.common.logger import get_logger
from flmq.common.urls import BrokerUrl, InvalidBrokerUrl

__all__ = [
    "UNVERIFIED",
    "check_options",
    "seconds_of",
    "server_name_of",
    "tls_context",
    "warn_if_unverified",
]

_log = get_logger(__name__)

_SECONDS = ("heartbeat", "socket_timeout", "stack_timeout")
_FILES = ("cafile", "certfile", "keyfile")
_TLS = (*_FILES, "server_name", "verify")
UNVERIFIED = "insecure-none"
"""The word that turns verification of the broker's certificate off."""


def check_options(url: BrokerUrl) -> None:
    """Check all options of ``url``, and that its certificate files can be used.

    Raises:
        InvalidBrokerUrl: one is unknown or of no use, or several contradict each other.
        AmbiguousLogin: the environment says several ways to log in.
    """
    seconds_of(url)
    check_login(url)
    tls_context(url)


def seconds_of(url: BrokerUrl) -> dict[str, float]:
    """Return the options that are times, in seconds.

    Raises:
        InvalidBrokerUrl: an option is unknown, or not a number.
    """
    numbers = {}
    for name, value in url.options:
        if name in LOGIN_OPTIONS or (name in _TLS and url.tls):
            continue
        if name in _TLS:
            raise InvalidBrokerUrl(
                url.full, f"option {name!r} is for TLS, with amqps only: begin it with amqps://"
            )
        if name not in _SECONDS:
            known = ", ".join(sorted((*_SECONDS, *_TLS, *LOGIN_OPTIONS)))
            raise InvalidBrokerUrl(url.full, f"option {name!r} is not known; use {known}")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise InvalidBrokerUrl(
                url.full, f"option {name!r} is not a number of seconds"
            ) from None
    return numbers


def tls_context(url: BrokerUrl) -> ssl.SSLContext | None:
    """Return the TLS context for the URL, or None if it does not use TLS. Reads its files.

    TLS is 1.2 or newer. The broker's certificate is verified, its chain and its host's name.

    Raises:
        InvalidBrokerUrl: the named certificate files cannot be used, or ``verify`` is another word.
    """
    if not url.tls:
        return None
    options = dict(url.options)
    files = {name: options[name] for name in _FILES if name in options}
    for name, path in files.items():
        _check_readable(url, name, path)
    if "keyfile" in files and "certfile" not in files:
        raise InvalidBrokerUrl(url.full, "a keyfile is of no use without its certfile: add it")
    context = _context(url, files.get("cafile"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if "certfile" in files:
        try:
            # Of a key with a passphrase, OpenSSL would ask the terminal.
            context.load_cert_chain(files["certfile"], files.get("keyfile"), lambda: "")
        except OSError as error:
            raise InvalidBrokerUrl(url.full, _objection(files, error)) from error
    word = options.get("verify", "")
    if "verify" in options and word != UNVERIFIED:
        raise InvalidBrokerUrl(
            url.full,
            "the broker's certificate is verified without a word; option 'verify' turns that off, "
            f"and knows one word: {UNVERIFIED}",
        )
    if word == UNVERIFIED:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def server_name_of(url: BrokerUrl) -> str:
    """Return the name that the broker's certificate must have: the host's, unless given."""
    return dict(url.options).get("server_name") or url.host


def warn_if_unverified(url: BrokerUrl) -> None:
    """Write a warning to the log if the broker's certificate is not verified."""
    if url.tls and ("verify", UNVERIFIED) in url.options:
        _log.warning(
            "the certificate of the broker at %s:%s is not verified (verify=%s): whoever stands "
            "between can read and change everything, the login too",
            url.host,
            url.port,
            UNVERIFIED,
        )


def _context(url: BrokerUrl, cafile: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise InvalidBrokerUrl(
            url.full,
            f"its certificate files cannot be used: cafile {cafile} holds no certificate of an "
            f"authority in PEM ({error})",
        ) from error


def _check_readable(url: BrokerUrl, name: str, path: str) -> None:
    """Name the file that cannot be read; OpenSSL would not."""
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise InvalidBrokerUrl(
            url.full,
            f"its certificate files cannot be used: {name} {path} cannot be read "
            f"({error.strerror})",
        ) from error


def _objection(files: dict[str, str], error: OSError) -> str:
    said = str(error)
    certfile, keyfile = files["certfile"], files.get("keyfile", files["certfile"])
    if "KEY_VALUES_MISMATCH" in said:
        what = f"the key in {keyfile} is not that of the certificate in {certfile}"
    elif "keyfile" not in files:
        what = f"{certfile} must hold the certificate and its key, in PEM; or add keyfile="
    else:
        what = (
            f"{certfile} must hold a certificate and {keyfile} its key, in PEM and without a "
            f"passphrase ({error})"
        )
    return f"its certificate files cannot be used: {what}"
