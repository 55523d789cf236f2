"""How a consumer that lost its channel begins again. The connection's thread is the test's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from flmq.transport.rabbitmq.consumer import RabbitMQConsumer
from flmq.transport.rabbitmq.subscription import Subscription
from tests.transport.held import HeldConnection


class Control:
    """Counts how often all is declared again."""

    def __init__(self) -> None:
        self.restored = 0

    def when_ready(self, action: Callable[[], None]) -> None:
        action()

    def restore(self, done: Callable[[Any], None]) -> None:
        self.restored += 1
        done(None)


@pytest.mark.parametrize(
    ("code", "text", "restored"),
    [
        (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", 0),
        (404, "NOT_FOUND - no queue 'q' in vhost '/'", 1),
    ],
)
def test_all_is_declared_again_where_something_is_missing_and_not_where_it_is_held(
    code: int, text: str, restored: int
) -> None:
    """A dead connection of our own may hold thousands of queues for minutes."""
    connection: Any = HeldConnection("consumer")
    control: Any = Control()
    wanted = Subscription(("q",), 1, 0, True, None, 100.0, lambda queue: True)
    consumer = RabbitMQConsumer(
        connection, control, wanted, owns_connection=True, on_close=lambda _: None
    )
    consumer._amqp = connection
    consumer._channel_closed(None, ChannelClosedByBroker(code, text))
    connection.timers.pop()()
    assert (control.restored, connection.opened) == (restored, 1)
