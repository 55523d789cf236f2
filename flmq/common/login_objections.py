"""What went wrong with TLS or a login, and what to do about it: one text for each cause.

OpenSSL and brokers say it in a few words, and pika wraps those in others; the words are the same
over all versions of TLS, and the exceptions around them are not. TLS alerts: RFC 8446, section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flmq.common.errors import BrokerAccessRefused, BrokerError, BrokerUnavailable
from flmq.common.urls import BrokerUrl

__all__ = ["login_objection"]

_Text = Callable[[BrokerUrl], str]
_Rows = tuple[tuple[tuple[str, ...], _Text], ...]


def login_objection(said: str, url: BrokerUrl) -> BrokerError | None:
    """Return the error for what was ``said``, by TLS or on a login; None if it is another matter.

    ``said`` is the representation of pika's or Python's exception. All but a wrong port are
    `BrokerAccessRefused`: certificates and users do not mend by themselves, so it is tried again
    seldom.
    """
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return BrokerAccessRefused(_first(_DISTRUSTED, said, _distrusted)(url))
    if (text := _first(_REFUSED, said)) is not None:
        return BrokerAccessRefused(text(url))
    if any(words in said for words in _NO_TLS):
        return BrokerUnavailable(_plain_port(url))
    if "IncompatibleProtocol" in said and any(words in said for words in _HUNG_UP):
        return BrokerUnavailable(_hung_up(url))
    return None


def _first(rows: _Rows, said: str, otherwise: _Text | None = None) -> Any:
    """Return the text of the first row that has a word of what was said."""
    return next((text for words, text in rows if any(w in said for w in words)), otherwise)


def _broker(url: BrokerUrl) -> str:
    return f"RabbitMQ at {url.host}:{url.port}"


def _own(url: BrokerUrl) -> str:
    """Name the client's certificate."""
    return f"this client's certificate ({dict(url.options).get('certfile', 'none given')})"


def _who(url: BrokerUrl) -> str:
    options = dict(url.options)
    if url.user == "guest" and "certfile" in options:
        return f"the user of the certificate in {options['certfile']}"
    return f"user {url.user!r}"


def _expired(url: BrokerUrl) -> str:
    return (
        f"the certificate of {_broker(url)} has expired, or this machine's clock is ahead: give "
        "the broker a new one (`flmq certs server --force` makes one)"
    )


def _not_yet(url: BrokerUrl) -> str:
    return (
        f"the certificate of {_broker(url)} is not yet valid: the clock of this machine, or of "
        "the one where it was made, is wrong"
    )


def _other_host(url: BrokerUrl) -> str:
    name = dict(url.options).get("server_name") or url.host
    return (
        f"the certificate of {_broker(url)} is not for {name!r}: connect by a name that it has "
        "(or say which, ?server_name=), or give the broker one for this name, too (`flmq certs "
        f"server {name} ...`). If neither is right, another machine stands between"
    )


def _unknown_authority(url: BrokerUrl) -> str:
    cafile = dict(url.options).get("cafile")
    signer = (
        "its authority is none that this machine knows"
        if cafile is None
        else (f"it is not signed by the authority in {cafile}")
    )
    return (
        f"the certificate of {_broker(url)} is not trusted, for {signer}: give the file of its "
        "authority in the URL, ?cafile=/path/to/ca.pem. If that is the right one, another machine "
        "stands between"
    )


def _distrusted(url: BrokerUrl) -> str:
    return (
        f"the certificate of {_broker(url)} is not trusted: `openssl verify` says what is wrong "
        "with it; give the file of its authority in the URL, ?cafile=/path/to/ca.pem"
    )


def _missing(url: BrokerUrl) -> str:
    if "certfile" in dict(url.options):
        return (
            f"{_broker(url)} takes none of the offers of this client's TLS: both ends need TLS 1.2 "
            "or newer and a common cipher; the broker's log says which lacks what"
        )
    return (
        f"{_broker(url)} wants a client certificate, and the URL names none: add ?certfile= and "
        "keyfile= (`flmq certs client` makes them), and auth=external to log in by it"
    )


def _own_unknown(url: BrokerUrl) -> str:
    return (
        f"{_broker(url)} does not trust {_own(url)}: it must be signed by an authority in the "
        "broker's ssl_options.cacertfile"
    )


def _own_expired(url: BrokerUrl) -> str:
    return (
        f"{_broker(url)} refuses {_own(url)}: it has expired; renew it (`flmq certs client "
        "--force` makes one). It is read again at the next try"
    )


def _own_bad(url: BrokerUrl) -> str:
    return (
        f"{_broker(url)} refuses {_own(url)}: it is revoked, not for clients, or not yet valid; "
        "the broker's log says which"
    )


def _unknown_user(url: BrokerUrl) -> str:
    return (
        f"{_broker(url)} knows no {_who(url)} for this certificate: its common name must be a user "
        "there (`flmq provision` makes it, or rabbitmqctl add_user and clear_password), and "
        "ssl_cert_login_from must be common_name"
    )


def _no_mechanism(url: BrokerUrl) -> str:
    if ("auth", "external") in url.options:
        return (
            f"{_broker(url)} takes no login by certificate: enable its plugin (rabbitmq-plugins "
            "enable rabbitmq_auth_mechanism_ssl) and add EXTERNAL to auth_mechanisms"
        )
    return (
        f"{_broker(url)} takes no passwords and no tokens (PLAIN is not among its "
        "auth_mechanisms): log in by certificate, ?auth=external"
    )


def _token(url: BrokerUrl) -> str:
    return (
        f"{_broker(url)} refuses the newer token of {_who(url)}: it must be of the same user, not "
        "expired, and signed by a key that the broker has (auth_oauth2.signing_keys)"
    )


def _plain_port(url: BrokerUrl) -> str:
    return (
        f"what answers at {url.host}:{url.port} speaks no TLS: that is the plain port; give the "
        "one for TLS (5671 unless set otherwise)"
    )


def _hung_up(url: BrokerUrl) -> str:
    there = f"what answers at {url.host}:{url.port} hung up"
    away = "or it is a proxy whose RabbitMQ is away, or no RabbitMQ at all"
    if not url.tls:
        return (
            f"{there} before it said anything: it is a port for TLS, whose URL begins with "
            f"amqps://, {away}"
        )
    if "certfile" in dict(url.options):
        return (
            f"{there} after the TLS handshake: it does not take {_own(url)} (its log says why), "
            f"{away}"
        )
    return (
        f"{there} after the TLS handshake: it wants a client certificate (?certfile=, keyfile=), "
        f"{away}"
    )


_DISTRUSTED: _Rows = (
    # OpenSSL, on the broker's certificate: X509_verify_cert_error_string(3).
    (("certificate has expired",), _expired),
    (("certificate is not yet valid",), _not_yet),
    (("Hostname mismatch", "IP address mismatch"), _other_host),
    (
        (
            "self-signed certificate",
            "self signed certificate",
            "unable to get local issuer",
            "unable to get issuer",
            "unable to verify the first certificate",
        ),
        _unknown_authority,
    ),
)
_REFUSED: _Rows = (
    # The broker, on ours, as an alert.
    (("CERTIFICATE_REQUIRED", "ALERT_HANDSHAKE_FAILURE"), _missing),
    (("ALERT_UNKNOWN_CA",), _own_unknown),
    (("ALERT_CERTIFICATE_EXPIRED",), _own_expired),
    (
        (
            "ALERT_BAD_CERTIFICATE",
            "ALERT_CERTIFICATE_REVOKED",
            "ALERT_CERTIFICATE_UNKNOWN",
            "ALERT_UNSUPPORTED_CERTIFICATE",
        ),
        _own_bad,
    ),
    # RabbitMQ, on the login.
    (("authentication mechanism EXTERNAL",), _unknown_user),
    (("could not negotiate use of",), _no_mechanism),
    (("New secret was refused",), _token),
)
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
_HUNG_UP = ("indicated EOF", "UNEXPECTED_EOF", "EOF occurred", "ConnectionReset", "BrokenPipe")
