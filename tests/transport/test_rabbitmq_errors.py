"""pika's exceptions and RabbitMQ's reply codes each have their place in flmq's tree."""

from __future__ import annotations

import inspect

import pika.exceptions
import pika.spec
import pytest
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
from flmq.common.urls import BrokerUrl
from flmq.transport import Address, Message
from flmq.transport.rabbitmq.channel_errors import culprit, size_limit
from flmq.transport.rabbitmq.errors import CODES, ROWS, reply_code, translate, translated

URL = BrokerUrl("broker.example", 5672, "fed", "alice", "hidden-secret")
BY_BROKER = pika.exceptions.ChannelClosedByBroker
FROM_BROKER = pika.exceptions.ConnectionClosedByBroker


def test_every_exception_of_pika_has_a_row() -> None:
    classes = {
        value
        for value in vars(pika.exceptions).values()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }
    missing = {one.__name__ for one in classes - set(ROWS)}
    assert not missing, f"add these to flmq.transport.rabbitmq.errors.ROWS: {missing}"


def test_every_reply_code_of_amqp_has_a_row() -> None:
    codes = {
        value
        for name, value in vars(pika.spec).items()
        if name.isupper() and isinstance(value, int) and 300 < value < 600
    }
    about_one_message = {pika.spec.NO_ROUTE, pika.spec.NO_CONSUMERS}  # basic.return, no error
    assert set(CODES) == codes - about_one_message


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            BY_BROKER(403, "ACCESS_REFUSED - access to queue 'q'"),
            BrokerAccessRefused,
            r"user 'alice' .*queue 'q'.*: rabbitmqctl set_permissions -p fed alice '\.\*'",
        ),
        (BY_BROKER(403, "ACCESS_REFUSED - odd"), BrokerAccessRefused, "'alice'.*'fed'"),
        (
            BY_BROKER(404, "NOT_FOUND - home node 'n' of durable queue 'flmq.models' in vhost"),
            BrokerUnavailable,
            r"'flmq.models' .*rabbitmqctl eval '.*<<\"fed\">>, queue, <<\"flmq.models\">>\)",
        ),
        (BY_BROKER(403, "ACCESS_REFUSED - queue 'q' in exclusive use"), ResourceLocked, "'q'"),
        (BY_BROKER(404, "NOT_FOUND - no queue 'q' in vhost"), BrokerRefusal, "no queue 'q'"),
        (BY_BROKER(404, "NOT_FOUND - home node 'x' is down"), BrokerUnavailable, "home node"),
        (BY_BROKER(405, "RESOURCE_LOCKED - locked queue 'q' in"), ResourceLocked, "'q'"),
        (BY_BROKER(406, "PRECONDITION_FAILED - inequivalent arg"), BrokerRefusal, "inequivalent"),
        (
            BY_BROKER(
                406,
                "PRECONDITION_FAILED - inequivalent arg 'x-overflow' for queue 'flmq.client.a' in "
                "vhost 'fed': received the value 'drop-head' of type 'longstr' but current is none",
            ),
            BrokerRefusal,
            "x-overflow none, .* the value .* rabbitmqctl .*flmq.client.a$",
        ),
        (BY_BROKER(406, "PRECONDITION_FAILED - ack timed out"), BrokerUnavailable, "timed out"),
        (BY_BROKER(599, "NEW - unheard of"), BrokerUnavailable, "unheard of"),
        (FROM_BROKER(320, "CONNECTION_FORCED - shutdown"), BrokerUnavailable, "shutdown.*again"),
        (FROM_BROKER(530, "NOT_ALLOWED - user limit reached"), TooManyConnections, "user_limits"),
        (
            FROM_BROKER(530, "NOT_ALLOWED - access to vhost 'fed' refused: connection limit (1)"),
            TooManyConnections,
            "needs 3; raise the limit .rabbitmqctl set_vhost_limits -p fed",
        ),
        (FROM_BROKER(540, "NOT_IMPLEMENTED - this"), BrokerRefusal, "NOT_IMPLEMENTED"),
        (FROM_BROKER(541, "INTERNAL_ERROR"), BrokerUnavailable, "INTERNAL_ERROR"),
        (
            pika.exceptions.ProbableAuthenticationError(
                "ConnectionClosedByBroker: (403) 'ACCESS_REFUSED - Login was refused'"
            ),
            BrokerAccessRefused,
            r"\(ACCESS_REFUSED - Login was refused\)",
        ),
        (
            pika.exceptions.ProbableAccessDeniedError(
                "ConnectionClosedByBroker: (530) 'NOT_ALLOWED - vhost fed not found'"
            ),
            BrokerAccessRefused,
            "vhost fed not found",
        ),
        (
            pika.exceptions.ProbableAccessDeniedError(
                "ConnectionClosedByBroker: (530) 'NOT_ALLOWED - connection limit (3) is reached'"
            ),
            TooManyConnections,
            "limit",
        ),
        (
            pika.exceptions.AMQPConnectionError(
                workflow.AMQPConnectionWorkflowFailed(
                    [workflow.AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "no!"))]
                )
            ),
            BrokerUnavailable,
            "broker.example:5672 .no!",
        ),
        (pika.exceptions.ConnectionClosedByClient(200, "bye"), TransportClosed, "bye"),
        (pika.exceptions.StreamLostError("reset"), BrokerUnavailable, "reset"),
        (OSError("odd"), BrokerUnavailable, "odd"),
        (KeyError("a bug"), BrokerUnavailable, "a bug"),
    ],
)  # fmt: skip
def test_translation(error: Exception, kind: type[BrokerError], words: str) -> None:
    made = translate(error, URL)
    assert type(made) is kind
    with pytest.raises(kind, match=words):
        raise made
    assert URL.password not in str(made)
    assert made.__cause__ is not None
    assert translate(made, URL) is made


def test_the_context_manager_translates() -> None:
    with pytest.raises(BrokerRefusal, match="refuses"), translated(URL):
        raise BY_BROKER(406, "PRECONDITION_FAILED - no")
    with pytest.raises(ValueError, match="not ours"), translated(URL):
        raise ValueError("not ours")


def test_reply_codes_are_found_behind_errors() -> None:
    assert reply_code(BY_BROKER(404, "x")) == 404
    assert reply_code(translate(BY_BROKER(404, "x"), URL)) == 404
    assert reply_code(ValueError("(404) x")) is None
    assert reply_code(None) is None


SENT = [
    (Address("", "q"), Message(b"123")),
    (Address("x", "a"), Message(b"12345", user_id="bob")),
    (Address("x", "b"), Message(b"1234567")),
]


@pytest.mark.parametrize(
    ("reason", "index"),
    [
        ("message size 7 is larger than configured max size 6", 2),
        ("message size 7B is larger than max size 6B", 2),
        ("user_id property set to 'bob' but authenticated user was 'alice'", 1),
        ("no exchange 'x' in vhost 'fed'", 1),
        ("access to topic 'b' in exchange 'x' in vhost 'fed' refused for user 'alice'", 2),
        ("access to exchange 'amq.default' in vhost 'fed' refused for user 'alice'", 0),
        ("no exchange 'y' in vhost 'fed'", None),
        ("invalid 'CC' header", None),
    ],
)
def test_the_broker_says_whose_fault_it_was(reason: str, index: int | None) -> None:
    assert culprit(reason, SENT) == index


def test_the_size_limit_is_read_off_the_reason() -> None:
    assert size_limit("message size 17 is larger than configured max size 16") == 16
    assert size_limit("no exchange 'x' in vhost '/'") is None
