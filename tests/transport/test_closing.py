"""How a publisher ends whose broker takes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.common.errors import TransportClosed
from flmq.transport import Address, Message
from flmq.transport.rabbitmq.outgoing import Pending
from flmq.transport.rabbitmq.publisher import RabbitMQPublisher
from flmq.transport.window import Window


class Away:
    """A connection whose broker is away."""

    def attach(self, user: object) -> None:
        """Do nothing."""

    post = detach = attach

    def close(self) -> None:
        """Do nothing."""

    def is_own_thread(self) -> bool:
        return False


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
