"""What the control connection declares again, over a connection that comes and goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from flmq.common.errors import BrokerUnavailable
from flmq.transport import Binding, Exchange, ExchangeType, Queue, Topology
from flmq.transport.declared import Declared
from flmq.transport.rabbitmq.control import Control
from tests.transport.held import HeldConnection


class Channel:
    """One on which every declaration meets ``problem``."""

    is_open = True

    def __init__(self, problem: Exception | None) -> None:
        self._problem = problem

    def add_on_close_callback(self, _: object) -> None:
        pass

    def close(self) -> None:
        self.is_open = False

    def exchange_declare(self, *_: object, callback: Callable[[Any], None], **__: object) -> None:
        if self._problem is not None:
            raise self._problem
        callback(None)


class Connection(HeldConnection):
    """One whose channels are open at once."""

    def __init__(self) -> None:
        super().__init__("control")
        self.problem: Exception | None = None

    def channel(self, on_open_callback: Callable[[Any], None]) -> None:
        super().channel(on_open_callback)
        on_open_callback(Channel(self.problem))


@pytest.mark.parametrize("code", [403, 405])
def test_one_try_to_declare_again_waits_however_often_the_connection_is_lost(code: int) -> None:
    connection: Any = Connection()
    declared = Declared()
    declared.add(Topology((Exchange("x", ExchangeType.FANOUT),)))
    control = Control(connection, declared)
    connection.problem = ChannelClosedByBroker(code, "no")
    for _ in range(5):
        control.connection_up(connection)
        control.connection_lost(BrokerUnavailable("gone"))
    control.connection_up(connection)
    for _ in range(3):
        before = connection.opened
        connection.fire()
        assert connection.opened == before + 1
    connection.problem = None
    connection.fire()
    assert connection.timers == []


class Queues(Channel):
    """A channel that notes what it is asked to declare; ``missing`` is not there."""

    def __init__(self, asked: list[tuple[str, bool]], missing: str | None) -> None:
        super().__init__(None)
        self._asked, self._missing = asked, missing

    def queue_declare(
        self,
        name: str,
        *,
        passive: bool = False,
        callback: Callable[[Any], None] | None = None,
        **_: object,
    ) -> None:
        self._asked.append((name, passive))
        if passive and name == self._missing:
            raise ChannelClosedByBroker(404, f"NOT_FOUND - no queue '{name}' in vhost '/'")
        if callback is not None:
            callback(None)

    def queue_bind(self, queue: str, *_: object, callback: Any = None) -> None:
        self._asked.append((f"binding of {queue}", False))
        if callback is not None:
            callback(None)


@pytest.mark.parametrize("missing", [None, "b"])
def test_thousands_of_queues_are_looked_for_and_declared_again_only_if_one_is_missing(
    monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    monkeypatch.setattr("flmq.transport.rabbitmq.control._MANY", 3)
    asked: list[tuple[str, bool]] = []
    connection: Any = Connection()
    connection.channel = lambda on_open_callback: on_open_callback(Queues(asked, missing))
    declared = Declared()
    declared.add(
        Topology(
            queues=tuple(Queue(name) for name in "abc"),
            bindings=tuple(Binding("x", name, "k") for name in "abc"),
        )
    )
    control = Control(connection, declared)
    ready: list[bool] = []
    control.when_ready(lambda: ready.append(True))
    control.connection_up(connection)
    assert ready == [True]
    looked = [("a", True), ("b", True), ("c", True)]
    whole = [(name, False) for name in ("a", "b", "c")]
    whole += [(f"binding of {name}", False) for name in "abc"]
    assert asked == (looked if missing is None else looked[:2] + whole)
    asked.clear()
    control.restore(lambda error: None)  # somebody missed something
    assert asked == whole
