"""What a client's credentials allow on a real broker, as `flmq provision` made them: no more.

Each attempt is made by hand, over pika, as alice: what no client of flmq would do.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions as px
import pytest

from flmq.broker.management import Management
from flmq.common.errors import BrokerAccessRefused
from flmq.messaging import Sender
from flmq.observe.events import ClientPresence, RoundCounts
from flmq.testing import fast_retries
from flmq.transport import (
    DEAD,
    MODELS,
    PARTIALS,
    PRESENCE,
    REGIONAL,
    REGIONAL_UPLOADS,
    REPLIES,
    TASKS,
    TASKS_LOCAL,
    UPLOADS,
    Address,
    client_in_key,
    client_queue,
    job_topology,
    lock_queue,
    presence_key,
    presence_queue,
    replies_queue,
    uploads_queue,
)
from flmq.transport.provisioned import PROVISIONED
from flmq.transport.regional import aggregator_queue, regional_queue, regional_uploads_queue
from flmq.wire import Begun, JobEnded, Presence, PresenceKind, encode
from tests.conftest import SessionBroker
from tests.end_to_end.federation import JOB, Federation, fed_avg, nudge
from tests.security.hosts import SITE, RabbitMQHost

REFUSED, WRONG = 403, 406
"""AMQP's replies: access refused; precondition failed."""


@pytest.fixture(scope="module")
def closed(
    broker_node: SessionBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RabbitMQHost]:
    """A provisioned virtual host with a job on it."""
    vhost = f"closed-{secrets.token_hex(4)}"
    broker_node.management.add_vhost(vhost)
    folder: Path = tmp_path_factory.mktemp("closed")
    with fast_retries():
        url = broker_node.address.with_vhost(vhost).full
        host = RabbitMQHost(url, broker_node.management, folder)
        host.transport().declare(job_topology(JOB))
        yield host
        host.close()
    broker_node.management.delete_vhost(vhost)


class Alice:
    """A connection of hers, and the broker's answer to what she tries."""

    def __init__(self, host: RabbitMQHost, user: str = "") -> None:
        self.host = host
        self.me = host.users.alice
        self.bob = host.users.bob
        at = host.url_of(user or self.me)
        login = pika.PlainCredentials(at.user, at.password)
        self.connection = pika.BlockingConnection(
            pika.ConnectionParameters(at.host, at.port, at.vhost, login)
        )

    def tries(self, attempt: Callable[[Any], object]) -> int:
        """Return the broker's reply code; 0: it did what was asked."""
        channel = self.connection.channel()
        channel.confirm_delivery()
        try:
            attempt(channel)
        except px.UnroutableError:
            return 0
        except (px.ChannelClosedByBroker, px.ConnectionClosedByBroker) as error:
            return int(error.reply_code)
        channel.close()
        return 0

    def publishes(self, exchange: str, key: str, **properties: Any) -> int:
        """Publish, and return the broker's answer."""
        given = pika.BasicProperties(**{"user_id": self.me, **properties})
        return self.tries(lambda channel: channel.basic_publish(exchange, key, b"forged", given))


@pytest.fixture
def alice(closed: RabbitMQHost) -> Iterator[Alice]:
    made = Alice(closed)
    yield made
    if made.connection.is_open:
        made.connection.close()


def does(method: str, *given: Any, **named: Any) -> Callable[[Any], object]:
    """An attempt: one method of a channel."""
    return lambda channel: getattr(channel, method)(*given, **named)


def others(alice: Alice) -> list[str]:
    """The queues that are not hers."""
    return [
        client_queue(alice.bob),
        *(client_queue(each) for each in alice.host.users.pooled),
        replies_queue(JOB),
        uploads_queue(JOB),
        presence_queue(JOB),
        aggregator_queue(SITE),
        regional_queue(SITE),
        regional_uploads_queue(SITE),
        DEAD,
    ]


def test_she_reads_no_queue_but_her_own(alice: Alice) -> None:
    for queue in others(alice):
        got = alice.tries(does("basic_get", queue))
        consumed = alice.tries(does("basic_consume", queue, print))
        alone = alice.tries(does("basic_consume", queue, print, exclusive=True))
        assert (got, consumed, alone) == (REFUSED, REFUSED, REFUSED), queue
    assert alice.tries(does("basic_get", client_queue(alice.me))) == 0


def test_she_purges_and_deletes_nothing_of_others(alice: Alice) -> None:
    for queue in others(alice):
        assert alice.tries(does("queue_purge", queue)) == REFUSED, queue
    for queue in (*others(alice), MODELS, client_queue(alice.me)):
        assert alice.tries(does("queue_delete", queue)) == REFUSED, queue


def test_she_neither_empties_the_stream_of_models_nor_takes_it_for_herself(alice: Alice) -> None:
    assert alice.publishes(MODELS, JOB) == REFUSED
    assert alice.publishes("", MODELS) == REFUSED
    start = {"x-stream-offset": "first"}

    def reads(channel: Any, exclusive: bool = False) -> None:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(MODELS, print, exclusive=exclusive, arguments=start)

    mine = Alice(alice.host)
    mine_alone = mine.connection.channel()
    with contextlib.suppress(px.ChannelClosedByBroker):
        reads(mine_alone, exclusive=True)
    bob = Alice(alice.host, alice.bob)
    assert bob.tries(reads) == 0
    for each in (mine, bob):
        if each.connection.is_open:
            each.connection.close()
    assert Alice(alice.host).tries(lambda c: c.queue_purge(MODELS)) != 0


def test_she_declares_nothing(alice: Alice) -> None:
    own = client_queue(alice.me)
    attempts: list[Callable[[Any], object]] = [
        lambda c: c.queue_declare(""),
        lambda c: c.queue_declare("x", exclusive=True),
        lambda c: c.queue_declare(client_queue("carol"), durable=True),
        lambda c: c.queue_declare(own, durable=True),
        lambda c: c.queue_declare(lock_queue("another"), exclusive=True),
        lambda c: c.queue_declare(replies_queue("another"), durable=True),
        lambda c: c.exchange_declare("x", "fanout"),
        lambda c: c.exchange_declare("x", "topic", internal=True),
        lambda c: c.exchange_declare(TASKS, "topic", durable=True),
        lambda c: c.exchange_delete(TASKS),
        lambda c: c.exchange_delete(PROVISIONED),
        lambda c: c.exchange_delete(DEAD),
    ]
    assert [alice.tries(attempt) for attempt in attempts] == [REFUSED] * len(attempts)


@pytest.mark.parametrize(
    "exchange",
    [TASKS, TASKS_LOCAL, REPLIES, UPLOADS, PRESENCE, MODELS, DEAD, REGIONAL, "amq.topic"],
)
def test_she_binds_and_unbinds_nothing(alice: Alice, exchange: str) -> None:
    keys = ("#", f"{SITE}.{client_in_key(alice.bob)}", f"{SITE}.{alice.me}")
    for name in (client_queue(alice.me), client_queue(alice.bob), DEAD):
        for key in keys:
            bound = alice.tries(does("queue_bind", name, exchange, key))
            loose = alice.tries(does("queue_unbind", name, exchange, key))
            assert (bound, loose) == (REFUSED, REFUSED), (name, key)
    for to in (REPLIES, PRESENCE, UPLOADS, TASKS_LOCAL):
        for key in ("#", JOB, "main.#"):
            assert alice.tries(does("exchange_bind", to, exchange, key)) == REFUSED, (to, key)
            assert alice.tries(does("exchange_unbind", to, exchange, key)) == REFUSED, (to, key)


@pytest.mark.parametrize(
    "exchange",
    [
        *("", TASKS, TASKS_LOCAL, MODELS, DEAD, PARTIALS, PROVISIONED),
        *("amq.direct", "amq.topic", "amq.fanout", "amq.headers", "amq.match"),
    ],
)
def test_she_publishes_to_no_exchange_of_others(alice: Alice, exchange: str) -> None:
    """No task, no receipt, no roll call, no end of a job, no model: they all go there."""
    for key in (
        *(f"{SITE}.{client_in_key(alice.bob)}", f"{SITE}.!all", f"{SITE}.{alice.me}", JOB),
        *(client_queue(alice.bob), client_queue(alice.me), replies_queue(JOB)),
    ):
        assert alice.publishes(exchange, key) == REFUSED, key


@pytest.mark.parametrize("exchange", [REPLIES, UPLOADS, PRESENCE, REGIONAL, REGIONAL_UPLOADS])
def test_she_publishes_under_no_key_but_her_own(alice: Alice, exchange: str) -> None:
    bob = client_in_key(alice.bob)
    tail = "" if exchange == PRESENCE else f".{JOB}"
    for key in (
        *(f"{SITE}.{bob}{tail}", f"{SITE}.!aggregator{tail}", f"{SITE}.!all{tail}"),
        *(f"eu.{alice.me}{tail}", f"{SITE}.{alice.me}.{JOB}.{JOB}", f"x.{SITE}.{alice.me}{tail}"),
        *(f"{SITE}.*{tail}", f"{SITE}.#", "#", "", f"{SITE}.{bob}", f"{SITE}.{alice.me}/x{tail}"),
        *(f"\n{SITE}.{alice.me}{tail}", f"{SITE}.{alice.bob}{tail}", f"{SITE}.{alice.me}\n{tail}x"),
    ):
        assert alice.publishes(exchange, key) == REFUSED, key
    assert alice.publishes(exchange, f"{SITE}.{alice.me}{tail}") == 0


def test_she_is_nobody_else(alice: Alice) -> None:
    for user in (alice.bob, alice.host.users.server, "guest"):
        assert alice.publishes(PRESENCE, f"{SITE}.{alice.me}", user_id=user) == WRONG


def test_she_is_on_no_other_virtual_host_and_not_in_the_management(closed: RabbitMQHost) -> None:
    at, api = closed.url_of(closed.users.alice), closed.management
    login = pika.PlainCredentials(at.user, at.password)
    with pytest.raises(px.AMQPError):
        pika.BlockingConnection(pika.ConnectionParameters(at.host, at.port, "/", login))
    hers = Management(api.host, api.port, at.user, at.password)
    for path in ("/api/overview", "/api/queues", "/api/definitions", "/api/users"):
        with pytest.raises(BrokerAccessRefused):
            hers.call("GET", path)


def test_what_a_passive_declaration_tells_is_as_documented(alice: Alice) -> None:
    """Up to RabbitMQ 4.2.5 it tells how full a queue is to who knows its name: a known leak."""
    version = str(alice.host.management.call("GET", "/api/overview")["rabbitmq_version"])
    leaks = tuple(map(int, version.split(".")[:3])) < (4, 2, 6)
    seen = alice.tries(lambda c: c.queue_declare(client_queue(alice.bob), passive=True))
    assert seen == (0 if leaks else REFUSED)


def test_she_holds_no_more_connections_and_channels_than_she_may(closed: RabbitMQHost) -> None:
    held: list[Any] = []

    def open_many() -> None:
        for _ in range(50):
            held.append(Alice(closed).connection)

    with pytest.raises(px.AMQPError):
        open_many()
    assert 3 <= len(held) <= 8
    bob = Alice(closed, closed.users.bob)
    assert bob.tries(lambda c: c.basic_get(client_queue(bob.bob))) == 0
    bob.connection.close()

    def open_channels() -> None:
        for _ in range(200):
            held[0].channel()

    with pytest.raises(px.AMQPError):
        open_channels()
    for connection in held:
        if connection.is_open:
            connection.close()


def test_an_aggregator_speaks_for_its_own_site_and_commands_nobody(closed: RabbitMQHost) -> None:
    adder = Alice(closed, closed.users.aggregator)
    adder.me = closed.users.aggregator
    bob = client_in_key(adder.bob)
    for exchange, key in (
        *((TASKS, f"{SITE}.{bob}"), (TASKS, f"{SITE}.!all"), (TASKS, "eu.!aggregator")),
        *(
            (MODELS, JOB),
            (TASKS_LOCAL, f"{SITE}.{bob}"),
            ("", replies_queue(JOB)),
            ("amq.topic", "x"),
        ),
        *((REPLIES, f"eu.{bob}.{JOB}"), (UPLOADS, f"eu.{bob}.{JOB}"), (PRESENCE, "eu.!aggregator")),
        *(
            (PRESENCE, f"{SITE}.{bob}"),
            (PARTIALS, f"eu.{SITE}.{JOB}"),
            (PARTIALS, f"{SITE}.eu.{JOB}"),
        ),
    ):
        assert adder.publishes(exchange, key) == REFUSED, (exchange, key)
    for queue in (client_queue(adder.bob), replies_queue(JOB), presence_queue(JOB), DEAD):
        assert adder.tries(does("basic_get", queue)) == REFUSED, queue
        assert adder.tries(does("queue_delete", queue)) == REFUSED, queue
        assert adder.tries(does("queue_bind", queue, PRESENCE, "#")) == REFUSED, queue
    own = regional_queue(SITE)
    for source in (MODELS, PRESENCE, REPLIES, TASKS_LOCAL):
        assert adder.tries(does("queue_bind", own, source, "#")) == REFUSED, source
        assert adder.tries(does("exchange_bind", UPLOADS, source, "#")) == REFUSED, source
    adder.connection.close()


def _serve_bob(host: RabbitMQHost, federation: Federation) -> None:
    bob = host.as_user(host.users.bob)
    federation.workers["bob"] = federation.worker({host.users.bob: {}}, nudge, transport=bob)


def test_a_flood_of_hers_does_not_hold_up_a_round(real_host: RabbitMQHost) -> None:
    host, federation = real_host, Federation(real_host)
    _serve_bob(host, federation)
    alice = Sender(host.as_user(host.users.alice).publisher(), user_id=host.users.alice)
    address = Address(PRESENCE, presence_key(SITE, host.users.alice))

    def flood(kind: PresenceKind) -> None:
        for number in range(3000):
            alice.send(address, Presence(kind, host.users.bob, SITE, f"i{number}"), mandatory=False)

    flood(PresenceKind.HELLO)
    server = federation.run(fed_avg(1), rounds=2)
    flood(PresenceKind.BYE)
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=1, accepted=1)] * 2
    assert {each.client_id for each in server.watch.of(ClientPresence)} == {host.users.bob}
    federation.close()


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_a_copy_by_header_reaches_nobody_who_believes_it(
    real_host: RabbitMQHost, header: str
) -> None:
    """RabbitMQ 4 refuses it; up to 3.13 it arrives, and server and client refuse it."""
    host, federation = real_host, Federation(real_host)
    _serve_bob(host, federation)
    server = federation.run(fed_avg(1), rounds=1)
    server.watch.wait_for(ClientPresence)
    alice, bob = Alice(host), client_in_key(host.users.bob)
    mine, his = f"{SITE}.{alice.me}", f"{SITE}.{bob}"
    bye = Presence(PresenceKind.BYE, host.users.bob, SITE, "forged")
    for exchange, key, copy, body in (
        (PRESENCE, mine, his, encode(bye)),
        (REGIONAL, mine, his, encode(JobEnded(JOB, 2**41, "forged"))),
        (REGIONAL, mine, his, encode(JobEnded("another", 2**41, "forged"))),
        (REGIONAL, mine, his, encode(Begun("t", host.users.bob, "forged"))),
    ):
        given = pika.BasicProperties(user_id=alice.me, headers={header: [copy]})
        answer = alice.tries(does("basic_publish", exchange, key, body, given))
        assert answer in (0, REFUSED)
    server.history()
    following = federation.run(fed_avg(1), rounds=1, job="another")
    following.history()
    for each in (server, following):
        assert [r.fit for r in each.watch.rounds()] == [RoundCounts(asked=1, accepted=1)]
    assert not federation.workers["bob"].done.done()
    alice.connection.close()
    federation.close()
