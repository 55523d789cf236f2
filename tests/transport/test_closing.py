"""How publishers and connections end whose broker takes nothing."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from flmq.common.errors import TransportClosed
from flmq.common.urls import parse_broker_url
from flmq.transport import Address, ConnectionState, Message
from flmq.transport.rabbitmq.connection import IOConnection
from flmq.transport.rabbitmq.outgoing import Pending
from flmq.transport.rabbitmq.publisher import RabbitMQPublisher
from flmq.transport.rabbitmq.together import Together
from flmq.transport.window import Window
from tests.transport.rigs import PATIENCE, eventually


class Away:
    """A connection whose broker is away."""

    def attach(self, user: object) -> None:
        """Do nothing."""

    post = detach = attach

    def close(self) -> None:
        """Do nothing."""

    def is_own_thread(self) -> bool:
        return False


def test_a_connection_that_is_given_up_before_it_was_open_is_closed_and_no_longer_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    heard: list[ConnectionState] = []
    connection = IOConnection(
        parse_broker_url(f"amqp://guest:guest@127.0.0.1:{port}/"),
        "consumer",
        Together(),
        listener=lambda event: heard.append(event.state),
    )
    with ThreadPoolExecutor() as threads:
        opening = threads.submit(partial(connection.open, patient=True))
        eventually(lambda: ConnectionState.LOST in heard)
        connection.close()
        with pytest.raises(TransportClosed):
            opening.result(PATIENCE)
    assert set(heard[:-1]) == {ConnectionState.LOST}
    assert heard[-1] is ConnectionState.CLOSED


def test_who_was_interrupted_in_closing_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    away: Any = Away()
    publisher = RabbitMQPublisher(away, away, Window(10, 1 << 20), lambda _: None)
    sent = publisher.publish(Address("flmq.presence", "main.a"), Message(b"bye"))
    drain, waits = Pending.drain, []

    def interrupted(pending: Pending, timeout: float) -> list[Any]:
        waits.append(timeout)
        if timeout:
            raise KeyboardInterrupt
        return drain(pending, timeout)

    monkeypatch.setattr(Pending, "drain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publisher.close()
    publisher.close()
    assert waits == [10.0, 0.0]
    assert isinstance(sent.exception(timeout=0), TransportClosed)
