"""What holds for RabbitMQ alone: logins, permissions, alarms, heartbeats, nodes that are killed."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from flmq.broker.node import PrivateNode
from flmq.broker.probe import ask_broker
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    BrokerRefusal,
    BrokerUnavailable,
    MessageTooLarge,
    ResourceLocked,
    TooManyConnections,
    TransportClosed,
)
from flmq.common.urls import BrokerUrl, InvalidBrokerUrl, parse_broker_url
from flmq.transport import (
    MODELS,
    Address,
    ConnectionState,
    Message,
    PublishOutcome,
    QueueInfo,
    Topology,
    Transport,
    federation_topology,
    models_topology,
    open_transport,
)
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.conftest import SessionBroker
from tests.proxy import Proxy
from tests.transport.rigs import (
    PATIENCE,
    QUIET,
    Events,
    RabbitMQRig,
    bodies,
    eventually,
    only,
    publish_all,
    queue,
    take,
    to,
)

SECRET = "correct-horse-battery"


@pytest.fixture
def address(broker_url: str) -> BrokerUrl:
    return parse_broker_url(broker_url)


@pytest.fixture
def impatient(broker_url: str) -> Iterator[RabbitMQRig]:
    """A rig with a heartbeat of one second."""
    rig = RabbitMQRig(broker_url, "?heartbeat=1")
    yield rig
    rig.close()


# Opening


def test_the_url_chooses_the_transport(broker_url: str) -> None:
    with open_transport(broker_url, name="chosen") as transport:
        assert isinstance(transport, RabbitMQTransport)
        transport.declare(queue("q"))
        assert transport.inspect_queue("q") == QueueInfo("q", 0, 0)


def test_the_connections_bear_names(broker_url: str, broker_node: SessionBroker) -> None:
    name = f"named-{secrets.token_hex(4)}"
    with open_transport(broker_url, name=name) as transport:
        transport.declare(queue("q"))
        transport.publisher()
        transport.consumer(["q"], prefetch=1)
        wanted = {f"{name} {role}" for role in ("control", "publisher", "consumer")}

        def names() -> set[str]:
            listed = broker_node.management.call("GET", "/api/connections")
            return {one.get("client_properties", {}).get("connection_name") for one in listed}

        eventually(lambda: wanted <= names())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"password": SECRET}, BrokerAccessRefused, "user 'flmq'.*Login was refused"),
        ({"user": "nobody", "password": SECRET}, BrokerAccessRefused, "user 'nobody'"),
        ({"vhost": "no-such"}, BrokerAccessRefused, "virtual host 'no-such'.*not found"),
        ({"port": 1}, BrokerUnavailable, "127.0.0.1:1 .*refused.*flmq doctor"),
        ({"host": "no-such-host.invalid"}, BrokerUnavailable, "no-such-host.invalid"),
        ({"tls": True}, BrokerUnavailable, "speaks no TLS: that is the plain port"),
    ],
    ids=["password", "user", "vhost", "port", "host", "tls"],
)
def test_a_broker_that_cannot_be_used_is_refused_at_once(
    address: BrokerUrl,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, object],
    error: type[BrokerError],
    words: str,
) -> None:
    wrong = replace(address, **change)  # type: ignore[arg-type]
    caplog.set_level(logging.DEBUG)
    with pytest.raises(error, match=words) as caught:
        RabbitMQTransport(wrong)
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert wrong.password not in shown
    assert str(wrong.port) in str(caught.value)


def test_no_password_is_shown_anywhere(address: BrokerUrl) -> None:
    with RabbitMQTransport(address) as transport:
        assert address.password not in f"{transport!r} {vars(transport)!r}"


def serve(answer: bytes | None) -> tuple[socket.socket, int]:
    """Listen on loopback as something that is no broker. b"": hangs up; None: says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)  # the client's greeting
                if answer == b"":
                    return
                connection.sendall(answer or b"")
                connection.recv(100)  # until the client hangs up

    threading.Thread(target=run, daemon=True).start()
    return listener, listener.getsockname()[1]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None], ids=["web", "hang up", "silent"]
)
def test_what_is_no_broker_is_not_waited_for(answer: bytes | None) -> None:
    listener, port = serve(answer)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=str(port)):
        RabbitMQTransport(f"amqp://127.0.0.1:{port}/?stack_timeout=0.5")
    assert time.monotonic() - began < PATIENCE / 2
    listener.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1", "amqp://"),
        ("amqp://127.0.0.1/?heartbeats=3", "'heartbeats' is not known; use .*heartbeat"),
        ("amqp://127.0.0.1/?heartbeat=soon", "'heartbeat' is not a number"),
        ("amqp://127.0.0.1/?cafile=ca.pem", "amqps only"),
        ("amqps://127.0.0.1/?cafile=/no/such/ca.pem", "certificate files"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidBrokerUrl, match=words):
        RabbitMQTransport(url)


def test_tls(address: BrokerUrl, tmp_path: Path) -> None:
    """Through a proxy that ends TLS, with a certificate of our own making."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Proxy(address.host, address.port, context) as proxy:
        secure = replace(address, host="127.0.0.1", port=proxy.port, tls=True)
        with pytest.raises(BrokerAccessRefused, match=r"not trusted.*cafile"):
            RabbitMQTransport(secure)
        trusted = replace(secure, options=(("cafile", str(certificate)),))
        assert ask_broker(trusted, declare=True).can_declare
        with pytest.raises(BrokerAccessRefused, match=r"not trusted.*cafile"):
            ask_broker(secure)
        with RabbitMQTransport(trusted) as transport:
            transport.declare(queue("q"))
            large = bytes(range(256)) * 20_000
            publish_all(transport.publisher(), to("q"), large)
            assert bodies(only(transport.consumer(["q"], prefetch=1), 1)) == [large]


# Permissions


@pytest.fixture
def limited(
    address: BrokerUrl, broker_node: SessionBroker
) -> Iterator[tuple[BrokerUrl, Transport]]:
    """A user who may write to "open" only, and read "mine" only; and an administrator."""
    user = f"limited-{secrets.token_hex(4)}"
    call = broker_node.management.call
    call("PUT", f"/api/users/{user}", {"password": SECRET, "tags": ""})
    call(
        "PUT",
        f"/api/permissions/{address.vhost}/{user}",
        {"configure": "^$", "write": "^amq.default$", "read": "^mine$"},
    )
    with RabbitMQTransport(address) as administrator:
        administrator.declare(queue("mine") + queue("yours"))
        yield replace(address, user=user, password=SECRET), administrator
    call("DELETE", f"/api/users/{user}")


def permit(broker: SessionBroker, url: BrokerUrl, **permissions: str) -> None:
    """Give a user these permissions, and no other."""
    everything = {"configure": "^$", "write": "^$", "read": "^$"} | permissions
    broker.management.call("PUT", f"/api/permissions/{url.vhost}/{url.user}", everything)


def test_what_may_not_be_written_waits_alone_for_its_permission(
    limited: tuple[BrokerUrl, Transport], broker_node: SessionBroker
) -> None:
    events = Events()
    with RabbitMQTransport(limited[0], listener=events) as transport:
        publisher = transport.publisher()
        exchanges = ["", "amq.topic", "amq.fanout", "", "amq.topic"]
        futures = [
            publisher.publish(Address(name, "mine"), Message(b""), mandatory=not name)
            for name in exchanges
        ]
        allowed = [future for name, future in zip(exchanges, futures, strict=True) if not name]
        assert {future.result(PATIENCE) for future in allowed} == {PublishOutcome.CONFIRMED}
        blocked = events.wait_for("publisher", ConnectionState.BLOCKED)
        assert "access to exchange 'amq." in blocked.detail
        assert "rabbitmqctl set_permissions -p" in blocked.detail
        assert SECRET not in blocked.detail
        assert sum(future.done() for future in futures) == 2
        events.clear()
        permit(broker_node, limited[0], write=".*")
        assert {future.result(PATIENCE) for future in futures} == {PublishOutcome.CONFIRMED}
        events.wait_for("publisher", ConnectionState.CONNECTED)


def test_what_waits_for_a_permission_is_given_up_at_the_close(
    limited: tuple[BrokerUrl, Transport],
) -> None:
    with RabbitMQTransport(limited[0]) as transport:
        publisher = transport.publisher()
        future = publisher.publish(Address("amq.topic", "mine"), Message(b""))
        publisher.close(timeout=0.2)
        with pytest.raises(TransportClosed):
            future.result(PATIENCE)


def test_what_may_not_be_read_or_declared_is_refused(
    limited: tuple[BrokerUrl, Transport],
) -> None:
    with RabbitMQTransport(limited[0]) as transport:
        transport.consumer(["mine"], prefetch=1)
        with pytest.raises(BrokerAccessRefused, match="'yours'"):
            transport.consumer(["yours"], prefetch=1)
        with pytest.raises(BrokerAccessRefused, match="'new'"):
            transport.declare(queue("new"))


@pytest.mark.parametrize("by", ["queue", "connections"])
def test_permissions_that_are_taken_away_are_waited_for(
    limited: tuple[BrokerUrl, Transport], broker_node: SessionBroker, by: str
) -> None:
    """All of them, of one who publishes, declares and consumes; then all is as it was."""
    url, administrator = limited
    permit(broker_node, url, configure=".*", write=".*", read=".*")
    events = Events()
    with RabbitMQTransport(url, listener=events) as transport:
        transport.declare(queue("mine") + queue("own", exclusive=True))
        consumer, publisher = transport.consumer(["mine"], prefetch=1), transport.publisher()
        own = transport.consumer(["own"], prefetch=1)
        permit(broker_node, url)
        events.clear()
        if by == "queue":
            administrator.delete_queue("mine")
        else:
            close_connections(broker_node, url.vhost, url.user)
        waiting = publisher.publish(to("mine"), Message(b"1"))
        for role in ("consumer", "publisher"):
            assert "permission" in events.wait_for(role, ConnectionState.BLOCKED).detail
        assert consumer.receive(QUIET) is None
        events.clear()
        permit(broker_node, url, configure=".*", write=".*", read=".*")
        for role in ("consumer", "publisher"):
            events.wait_for(role, ConnectionState.CONNECTED)
        # Mandatory, and the queue may come back after its message: then it is told so.
        if waiting.result(PATIENCE) is PublishOutcome.UNROUTABLE:
            publish_all(publisher, to("mine"), b"1")
        publish_all(publisher, to("own"), b"own")
        assert bodies(take(consumer, 1)) == [b"1"]
        assert bodies(take(own, 1)) == [b"own"]


def test_a_password_that_changes_is_waited_for(
    limited: tuple[BrokerUrl, Transport], broker_node: SessionBroker
) -> None:
    url, administrator = limited
    events = Events()
    with RabbitMQTransport(url, listener=events) as transport:
        consumer = transport.consumer(["mine"], prefetch=1)
        call = broker_node.management.call
        call("PUT", f"/api/users/{url.user}", {"password": "rotated", "tags": ""})
        events.clear()
        close_connections(broker_node, url.vhost, url.user)
        eventually(lambda: any("refuses user" in event.detail for event in events.seen))
        assert not any(SECRET in event.detail for event in events.seen)
        call("PUT", f"/api/users/{url.user}", {"password": SECRET, "tags": ""})
        publish_all(administrator.publisher(), to("mine"), b"after")
        assert bodies(take(consumer, 1)) == [b"after"]


# Whose fault it was


def test_a_fault_that_the_broker_does_not_explain_fails_one_message(broker_url: str) -> None:
    """RabbitMQ says that a CC header is of the wrong type, not whose: each is tried alone."""
    with RabbitMQTransport(broker_url) as transport:
        transport.declare(queue("q"))
        publisher = transport.publisher()
        headers = [{"CC": "text"} if number in (3, 7) else {} for number in range(10)]
        futures = [publisher.publish(to("q"), Message(b"", headers=one)) for one in headers]
        wait(futures, PATIENCE)
        for one, future in zip(headers, futures, strict=True):
            if one:
                with pytest.raises(BrokerRefusal, match="CC"):
                    future.result(0)
            else:
                assert future.result(0) is PublishOutcome.CONFIRMED


def test_the_size_limit_is_learned(broker_url: str) -> None:
    with RabbitMQTransport(broker_url) as transport:
        transport.declare(queue("q"))
        publisher = transport.publisher()
        large = Message(bytes(17 * 1024 * 1024))
        for _ in range(3):
            with pytest.raises(MessageTooLarge, match="the broker's max_message_size") as info:
                publisher.publish(to("q"), large).result(PATIENCE)
            assert info.value.limit == 16 * 1024 * 1024
        publish_all(publisher, to("q"), b"fits")


@pytest.mark.parametrize("other", [queue("q"), queue("q", x_overflow="drop-head")])
def test_a_queue_of_another_form_is_named_with_both_values_and_the_remedy(
    broker_url: str, other: Topology
) -> None:
    with RabbitMQTransport(broker_url) as transport:
        transport.declare(other)
        with pytest.raises(BrokerRefusal) as info:
            transport.declare(queue("q", x_overflow="reject-publish"))
        said = str(info.value)
        assert "queue 'q'" in said
        assert ("drop-head" if other.queues[0].arguments else "with x-overflow none") in said
        assert "reject-publish" in said
        vhost = parse_broker_url(broker_url).vhost
        assert said.endswith(f"rabbitmqctl delete_queue -p {vhost} q")


# Connections


def close_connections(broker: SessionBroker, vhost: str, user: str | None = None) -> None:
    """Close them as an operator does; waits until the broker has listed them."""

    def found() -> list[str]:
        listed = broker.management.call("GET", "/api/connections")
        return [
            one["name"]
            for one in listed
            if one.get("vhost") == vhost and user in (None, one.get("user"))
        ]

    eventually(lambda: bool(found()))
    for name in found():
        broker.management.call("DELETE", "/api/connections/" + quote(name, safe=""))


def test_an_operator_may_close_connections(address: BrokerUrl, broker_node: SessionBroker) -> None:
    events = Events()
    with RabbitMQTransport(address, listener=events) as transport:
        transport.declare(queue("q"))
        consumer, publisher = transport.consumer(["q"], prefetch=1), transport.publisher()
        events.clear()
        close_connections(broker_node, address.vhost)
        assert "CONNECTION_FORCED" in events.wait_for("consumer", ConnectionState.LOST).detail
        publish_all(publisher, to("q"), b"1")
        assert bodies(take(consumer, 1)) == [b"1"]


@pytest.fixture
def crowded(
    limited: tuple[BrokerUrl, Transport], broker_node: SessionBroker
) -> Iterator[BrokerUrl]:
    """A user who may have two connections at once."""
    url = limited[0]
    permit(broker_node, url, configure=".*", write=".*", read=".*")
    path = f"/api/user-limits/{url.user}/max-connections"
    broker_node.management.call("PUT", path, {"value": 2})
    yield url
    broker_node.management.call("DELETE", path)


def test_a_limit_of_connections_is_named_and_waited_for(
    crowded: BrokerUrl, broker_node: SessionBroker
) -> None:
    events = Events()
    with RabbitMQTransport(crowded, listener=events) as transport:
        transport.publisher()
        with ThreadPoolExecutor(1) as pool:
            third = pool.submit(transport.publisher)
            said = events.wait_for("publisher", ConnectionState.LOST).detail
            assert "takes no further connections" in said
            assert "needs 3; raise the limit (rabbitmqctl set_user_limits" in said
            assert "no RabbitMQ" not in said
            with pytest.raises(TooManyConnections, match="needs 3"):
                RabbitMQTransport(crowded)
            path = f"/api/user-limits/{crowded.user}/max-connections"
            broker_node.management.call("PUT", path, {"value": 3})
            transport.declare(queue("q"))
            publish_all(third.result(PATIENCE), to("q"), b"1")


def test_a_connection_that_says_nothing_is_given_up(impatient: RabbitMQRig) -> None:
    """Half open: the network swallows everything, no end is told."""
    events = Events()
    transport = impatient.transport(events)
    transport.declare(queue("q"))
    publisher = transport.publisher()
    consumer = transport.consumer(["q"], prefetch=1, exclusive=True)
    publish_all(publisher, to("q"), b"in hand")
    take(consumer, 1)
    events.clear()
    impatient.proxy.freeze()
    future = publisher.publish(to("q"), Message(b"later"))
    events.wait_for("consumer", ConnectionState.LOST)
    # The broker holds our dead exclusive consumer until it notices in its turn.
    assert future.result(PATIENCE) is PublishOutcome.CONFIRMED
    assert bodies(take(consumer, 2, ack=True)) == [b"in hand", b"later"]


def test_a_queue_that_another_has_taken_is_told(impatient: RabbitMQRig) -> None:
    """After a loss a lock is waited for as long as a dead connection may hold it, not longer."""
    transport = impatient.transport()
    transport.declare(queue("q"))
    consumer = transport.consumer(["q"], prefetch=1, exclusive=True)
    impatient.down()
    witness = impatient.witness()
    eventually(lambda: witness.inspect_queue("q") == QueueInfo("q", 0, 0))
    other = witness.consumer(["q"], prefetch=1, exclusive=True)
    impatient.up()
    with pytest.raises(ResourceLocked) as caught:
        consumer.receive(PATIENCE)
    assert caught.value.queue == "q"
    other.close()


def test_an_exclusive_queue_that_another_has_taken_is_told(impatient: RabbitMQRig) -> None:
    own = queue("own", durable=False, exclusive=True)
    transport = impatient.transport()
    transport.declare(own)
    consumer = transport.consumer(["own"], prefetch=1)
    impatient.down()
    witness = impatient.witness()
    eventually(lambda: witness.inspect_queue("own") is None)
    witness.declare(own)
    impatient.up()
    with pytest.raises(ResourceLocked):
        consumer.receive(PATIENCE)


def test_a_trainer_that_hogs_the_interpreter_loses_no_connection(impatient: RabbitMQRig) -> None:
    events = Events()
    transport = impatient.transport(events)
    transport.declare(queue("q"))
    consumer, publisher = transport.consumer(["q"], prefetch=1), transport.publisher()
    publish_all(publisher, to("q"), b"task")
    [task] = take(consumer, 1)
    ends = time.monotonic() + 4
    while time.monotonic() < ends:  # four heartbeats of computing in pure Python
        sum(number * number for number in range(20_000))
    publish_all(publisher, to("q"), b"reply")
    consumer.ack(task)
    [reply] = only(consumer, 1)
    assert (reply.message.body, reply.redelivered) == (b"reply", False)
    assert not any(event.state is ConnectionState.LOST for event in events.seen)


def test_a_slow_way_costs_one_round_trip_for_a_window(broker_url: str) -> None:
    rig = RabbitMQRig(broker_url)
    transport = rig.transport()
    transport.declare(queue("q"))
    publisher = transport.publisher()
    rig.proxy.delay(0.05)
    began = time.monotonic()
    publish_all(publisher, to("q"), *[b"x"] * 200)
    # One confirm at a time would take 200 round trips of 0.1 s.
    assert time.monotonic() - began < 5
    rig.proxy.delay(0)
    rig.close()


# A node of our own


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    own = PrivateNode(tmp_path_factory.mktemp("broker") / "node").start()
    yield own
    own.stop(timeout=2.0)


def test_an_alarm_blocks_publishers_until_it_is_over(node: PrivateNode) -> None:
    events = Events()
    with RabbitMQTransport(node.url, listener=events) as transport:
        transport.declare(queue("alarm"))
        publisher, consumer = transport.publisher(), transport.consumer(["alarm"], prefetch=1)
        publish_all(publisher, to("alarm"), b"1", b"2")
        node.ctl("set_vm_memory_high_watermark", "0.000001")
        events.clear()
        waiting = [publisher.publish(to("alarm"), Message(b"%d" % n)) for n in range(3, 6)]
        blocked = events.wait_for("publisher", ConnectionState.BLOCKED)
        assert "memory" in blocked.detail
        # Consumers go on meanwhile, and their acks are heard.
        assert bodies(only(consumer, 2, ack=True)) == [b"1", b"2"]
        assert not any(future.done() for future in waiting)
        node.ctl("set_vm_memory_high_watermark", "0.4")
        events.wait_for("publisher", ConnectionState.CONNECTED)
        assert {future.result(PATIENCE) for future in waiting} == {PublishOutcome.CONFIRMED}
        assert bodies(only(consumer, 3, ack=True)) == [b"3", b"4", b"5"]


def test_a_listener_that_fails_costs_no_connection(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("a mistake in the listener")

    with RabbitMQTransport(broker_url, listener=fail) as transport:
        transport.declare(queue("q"))
        publish_all(transport.publisher(), to("q"), b"1")
    assert "a mistake in the listener" in caplog.text


def test_a_killed_node_that_returns_is_ridden_out(node: PrivateNode) -> None:
    own = queue("own", durable=False, exclusive=True)
    events = Events()
    with RabbitMQTransport(node.url, listener=events) as transport:
        transport.declare(queue("q") + own)
        publisher = transport.publisher()
        consumer = transport.consumer(["q"], prefetch=5)
        on_own = transport.consumer(["own"], prefetch=5)
        publish_all(publisher, to("q"), b"1", b"2")
        take(consumer, 2)
        # A queue that was declared less than some 2 s before a kill -9 is not on disk yet.
        node.evaluate("mnesia:sync_log().")
        events.clear()
        node.kill()
        future = publisher.publish(to("q"), Message(b"3"))
        events.wait_for("publisher", ConnectionState.LOST)
        node.restart()
        assert future.result(60) is PublishOutcome.CONFIRMED
        again = take(consumer, 3, ack=True)
        assert bodies(again) == [b"1", b"2", b"3"]
        assert again[0].redelivered
        publish_all(publisher, to("own"), b"own")
        assert bodies(only(on_own, 1)) == [b"own"]
        assert transport.consumer(["q"], prefetch=1).receive(QUIET) is None


def test_a_node_that_is_killed_right_after_its_first_stream(private_node: PrivateNode) -> None:
    """RabbitMQ loses the stream: all else goes on, and one line says what mends it."""
    events = Events()
    with RabbitMQTransport(private_node.url, listener=events) as transport:
        transport.declare(queue("q") + queue("own", durable=False, exclusive=True))
        publisher, consumer = transport.publisher(), transport.consumer(["q"], prefetch=5)
        private_node.evaluate("mnesia:sync_log().")
        transport.declare(federation_topology() + models_topology())
        private_node.kill()
        events.clear()
        private_node.restart()
        publish_all(publisher, to("q"), b"1")
        assert bodies(take(consumer, 1)) == [b"1"]
        said = events.wait_for("control", ConnectionState.BLOCKED).detail
        assert f"queue {MODELS!r} is not to be had" in said
        assert "no RabbitMQ to talk to" not in said
        events.clear()
        mend = re.search(r"rabbitmqctl eval '(.*)'$", said)
        assert mend is not None
        private_node.evaluate(mend[1])
        events.wait_for("control", ConnectionState.CONNECTED)
        publish_all(publisher, Address(MODELS, "job"), b"chunk")
