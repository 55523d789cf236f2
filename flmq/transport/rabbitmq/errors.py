"""Translate pika's and RabbitMQ's errors: one table by exception, one by AMQP reply code.

A test lists ``pika.exceptions`` and fails on a class without a row.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pika.exceptions as px
from pika.adapters.utils import connection_workflow as workflow

from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    BrokerRefusal,
    BrokerUnavailable,
    ResourceLocked,
    TooManyConnections,
    TransportClosed,
)
from flmq.common.login_objections import login_objection
from flmq.common.urls import BrokerUrl
from flmq.transport.topology import AMOUNTS

__all__ = ["CODES", "ROWS", "OtherAmount", "reply_code", "translate", "translated"]

Kind = type[BrokerError]

CONNECTIONS_NEEDED = 3
"""Connections of one process: one to declare and inspect, one to publish, one to consume."""

ROWS: Mapping[type[BaseException], Kind] = {
    # The connection to the broker: retry.
    px.AMQPError: BrokerUnavailable,
    px.AMQPConnectionError: BrokerUnavailable,
    px.AMQPHeartbeatTimeout: BrokerUnavailable,
    px.ConnectionBlockedTimeout: BrokerUnavailable,
    px.ConnectionOpenAborted: BrokerUnavailable,  # by pika, when stack_timeout is over
    px.ConnectionWrongStateError: BrokerUnavailable,
    px.StreamLostError: BrokerUnavailable,
    # The broker's answer; see CODES.
    px.ConnectionClosed: BrokerUnavailable,
    px.ConnectionClosedByBroker: BrokerUnavailable,
    px.ConnectionClosedByClient: TransportClosed,
    px.ChannelClosed: BrokerUnavailable,
    px.ChannelClosedByBroker: BrokerUnavailable,
    px.ChannelClosedByClient: TransportClosed,
    # Authentication.
    px.AuthenticationError: BrokerAccessRefused,
    px.ProbableAuthenticationError: BrokerAccessRefused,
    px.ProbableAccessDeniedError: BrokerAccessRefused,
    # A channel's state: it is reopened.
    px.AMQPChannelError: BrokerUnavailable,
    px.ChannelError: BrokerUnavailable,
    px.ChannelWrongStateError: BrokerUnavailable,
    px.ConsumerCancelled: BrokerUnavailable,
    px.NackError: BrokerUnavailable,
    px.NoFreeChannels: BrokerUnavailable,
    px.UnroutableError: BrokerRefusal,
    # Not RabbitMQ, or a protocol error: retrying seldom helps, but the bytes may be at fault.
    px.BodyTooLongError: BrokerUnavailable,
    px.IncompatibleProtocolError: BrokerUnavailable,
    px.InvalidFrameError: BrokerUnavailable,
    px.ProtocolSyntaxError: BrokerUnavailable,
    px.ProtocolVersionMismatch: BrokerUnavailable,
    px.UnexpectedFrameError: BrokerUnavailable,
    # Our request cannot be sent.
    px.DuplicateConsumerTag: BrokerRefusal,
    px.DuplicateGetOkCallback: BrokerRefusal,
    px.InvalidChannelNumber: BrokerRefusal,
    px.InvalidFieldTypeException: BrokerRefusal,
    px.MethodNotImplemented: BrokerRefusal,
    px.ReentrancyError: BrokerRefusal,
    px.ShortStringTooLong: BrokerRefusal,
    px.UnsupportedAMQPFieldException: BrokerRefusal,
    # Below pika.
    workflow.AMQPConnectorException: BrokerUnavailable,
    ssl.SSLCertVerificationError: BrokerAccessRefused,
    OSError: BrokerUnavailable,
}

CODES: Mapping[int, Kind] = {
    311: BrokerRefusal,  # content-too-large
    320: BrokerUnavailable,  # connection-forced: the node stops, or an operator closed it
    402: BrokerRefusal,  # invalid-path
    403: BrokerAccessRefused,
    404: BrokerRefusal,  # not-found
    405: ResourceLocked,
    406: BrokerRefusal,  # precondition-failed
    501: BrokerRefusal,  # frame-error
    502: BrokerRefusal,  # syntax-error
    503: BrokerRefusal,  # command-invalid
    504: BrokerUnavailable,  # channel-error: the channel was closed meanwhile
    505: BrokerUnavailable,  # unexpected-frame
    506: BrokerUnavailable,  # resource-error: the node runs out of something
    530: BrokerAccessRefused,  # not-allowed: the virtual host
    540: BrokerRefusal,  # not-implemented
    541: BrokerUnavailable,  # internal-error, e.g. a quorum queue without leader
}

_EXCEPTIONS_BY_TEXT: tuple[tuple[int, str, Kind], ...] = (
    (403, "in exclusive use", ResourceLocked),
    (404, "home node", BrokerUnavailable),
    (404, "is down", BrokerUnavailable),
    (406, "timed out", BrokerUnavailable),  # consumer_timeout: un-acked for too long
    (530, "limit", TooManyConnections),  # connections of a user, a virtual host, a node
    (530, "is down", BrokerUnavailable),
)
"""Replies whose text changes the usual meaning of their code."""


def translate(error: BaseException, url: BrokerUrl) -> BrokerError:
    """Return flmq's error for ``error``, as its cause; the text contains no password."""
    if isinstance(error, BrokerError):
        return error
    root = _root(error)
    made = login_objection(repr(root), url) or _TEXTS[_kind(root)](_said(root), url)
    made.__cause__ = root
    return made


@contextmanager
def translated(url: BrokerUrl) -> Iterator[None]:
    """Translate what pika raises in the block to flmq's errors."""
    try:
        yield
    except (px.AMQPError, px.ChannelError, px.ReentrancyError, OSError) as error:
        raise translate(error, url) from error


def reply_code(error: BaseException | None) -> int | None:
    """Return the AMQP reply code behind an error; None if the broker gave none."""
    while error is not None:
        if isinstance(error, px.ChannelClosed | px.ConnectionClosed):
            return int(error.reply_code)
        if (match := _CODE.search(_said(error))) and isinstance(error, px.AMQPConnectionError):
            return int(match[1])
        error = error.__cause__
    return None


_CODE = re.compile(r"\((\d{3})\) ")
_QUEUE = re.compile(r"queue '([^']*)'")
_INEQUIVALENT = re.compile(
    r"inequivalent arg '([^']*)' for (queue|exchange) '([^']*)'.*: "
    r"received (.+) but current is (.+?)['\"]?$"
)
_VALUE = re.compile(r"the value '(.*)' of type '(\w+)")
_HOMELESS = re.compile(r"home node .* of durable queue '([^']*)'")


def _root(error: BaseException) -> BaseException:
    """Unwrap the errors that pika's connection workflow wraps."""
    while True:
        if isinstance(error, workflow.AMQPConnectionWorkflowFailed) and error.exceptions:
            error = error.exceptions[-1]
        elif isinstance(error, workflow.AMQPConnectorPhaseErrorBase):
            error = error.exception
        elif error.args and isinstance(error.args[0], BaseException):
            error = error.args[0]
        else:
            return error


def _kind(root: BaseException) -> Kind:
    code, said = reply_code(root), _said(root)
    if code is not None:
        for wanted, part, kind in _EXCEPTIONS_BY_TEXT:
            if code == wanted and part in said:
                return kind
        if not isinstance(root, px.ConnectionClosedByClient | px.ChannelClosedByClient):
            return CODES.get(code, BrokerUnavailable)
    return next((ROWS[c] for c in type(root).__mro__ if c in ROWS), BrokerUnavailable)


def _said(error: BaseException) -> str:
    """Return the error's text in one line."""
    if isinstance(error, px.ChannelClosed | px.ConnectionClosed):
        return str(error.reply_text)
    if isinstance(error, px.ConnectionOpenAborted):
        return "no AMQP answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    words = "; ".join(str(arg) for arg in error.args) or type(error).__name__
    return " ".join(words.split())


def _unavailable(said: str, url: BrokerUrl) -> BrokerError:
    if "CONNECTION_FORCED" in said:
        return BrokerUnavailable(
            f"RabbitMQ at {url.host}:{url.port} closed the connection ({_plain(said)}): it stops, "
            "or an operator closed it; it is made again"
        )
    if lost := _HOMELESS.search(said):
        return BrokerUnavailable(
            f"queue {lost[1]!r} is not to be had on RabbitMQ at {url.host}:{url.port}: its home "
            "node is down; start it. If it is up, it was killed right after it had declared its "
            "first stream, and RabbitMQ has lost track of it: clear it away, and flmq makes it "
            f"anew: rabbitmqctl eval '{_clear_away(url.vhost, lost[1])}'"
        )
    return BrokerUnavailable(
        f"no RabbitMQ to talk to at {url.host}:{url.port} ({said}): check that it runs there and "
        "that the network lets you reach it; `flmq doctor` helps"
    )


def _clear_away(vhost: str, queue: str) -> str:
    """Return Erlang code that deletes a queue without a process (on RabbitMQ 4 by its record)."""
    return (
        f'N = rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>), U = <<"flmq">>, '
        "try rabbit_amqqueue:internal_delete(N, U) catch error:function_clause -> "
        "{ok, Q} = rabbit_db_queue:get_durable(N), rabbit_amqqueue:internal_delete(Q, U) end."
    )


def _crowded(said: str, url: BrokerUrl) -> BrokerError:
    command = f"set_user_limits {url.user}"
    if "access to vhost" in said:
        command = f"set_vhost_limits -p {url.vhost}"
    return TooManyConnections(
        f"RabbitMQ at {url.host}:{url.port} takes no further connections ({_plain(said)}): every "
        f"flmq server and client process needs {CONNECTIONS_NEEDED}; raise the limit (rabbitmqctl "
        f"{command} '{{\"max-connections\": N}}') or stop others; it is tried again, but seldom"
    )


def _access_refused(said: str, url: BrokerUrl) -> BrokerError:
    if "access to" in said and "ACCESS_REFUSED" in said:
        return BrokerAccessRefused(
            f"RabbitMQ at {url.host}:{url.port} lacks a permission of user {url.user!r} "
            f"({_plain(said)}): rabbitmqctl set_permissions -p {url.vhost} {url.user} "
            "'.*' '.*' '.*'"
        )
    return BrokerAccessRefused(
        f"RabbitMQ at {url.host}:{url.port} refuses user {url.user!r} on virtual host "
        f"{url.vhost!r} ({_plain(said)}): check user name, password, virtual host and permissions"
    )


class OtherAmount(BrokerRefusal):
    """A queue exists with another value of an argument that only limits an amount or a time."""

    def __init__(self, queue: str, argument: str, ours: str, theirs: str) -> None:
        """Name the queue, its argument, and both values as the broker shows them."""
        self.queue = queue
        self.argument = argument
        self.found = _value(theirs)
        super().__init__(
            f"queue {queue!r} is there with {argument} {theirs}, and this flmq would make it with "
            f"{ours}: it is used as it is"
        )


def _value(said: str) -> int | str | None:
    """Return a queue argument's value as the broker shows it; None if it has none."""
    if (match := _VALUE.search(said)) is None:
        return None
    return match[1] if match[2] == "longstr" else int(match[1])


def _refusal(said: str, url: BrokerUrl) -> BrokerError:
    if other := _INEQUIVALENT.search(said):
        argument, kind, name, ours, theirs = other.groups()
        if kind == "queue" and argument in AMOUNTS:
            return OtherAmount(name, argument, ours, theirs)
        delete = f"rabbitmqctl delete_queue -p {url.vhost} {name}"
        if kind == "exchange":
            delete = f"rabbitmqadmin --vhost={url.vhost} delete exchange name={name}"
        return BrokerRefusal(
            f"{kind} {name!r} is on RabbitMQ at {url.host}:{url.port} with {argument} {theirs}, "
            f"and this flmq declares it with {ours}: another version of flmq, or a person, made it "
            f"so; go on with that version, take another virtual host, or delete it and what it "
            f"holds, and it is made anew: {delete}"
        )
    return BrokerRefusal(f"RabbitMQ at {url.host}:{url.port} refuses: {_plain(said)}")


def _locked(said: str, url: BrokerUrl) -> BrokerError:
    match = _QUEUE.search(said)
    return ResourceLocked(match[1] if match else "?")


def _closed(said: str, url: BrokerUrl) -> BrokerError:
    return TransportClosed(f"the connection to {url.host}:{url.port} was closed here ({said})")


_TEXTS: Mapping[Kind, Callable[[str, BrokerUrl], BrokerError]] = {
    BrokerUnavailable: _unavailable,
    TooManyConnections: _crowded,
    BrokerAccessRefused: _access_refused,
    BrokerRefusal: _refusal,
    ResourceLocked: _locked,
    TransportClosed: _closed,
}


def _plain(said: str) -> str:
    """Strip the class names that pika adds to the broker's message."""
    match = re.search(r"\(\d{3}\) ['\"](.*)['\"]$", said)
    return match[1] if match else said
