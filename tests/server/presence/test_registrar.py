"""The registrar: the calls of a ClientManager, in order, on a thread that nobody waits for."""

from __future__ import annotations

import threading

import pytest

from flmq.server import ClientManager, SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion
from flmq.server.presence.registrar import Registrar
from flmq.testing import ManualClock
from tests.server.proxies import IdleProxy
from tests.transport.rigs import PATIENCE, eventually


class _Plain(ClientManager):
    """Somebody's own manager, which notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def num_available(self) -> int:
        return 0

    def register(self, client: ClientProxy) -> bool:
        self.told.append(("register", client.cid))
        return True

    def unregister(self, client: ClientProxy) -> None:
        self.told.append(("unregister", client.cid))

    def all(self) -> dict[str, ClientProxy]:
        return {}

    def wait_for(self, num_clients: int, timeout: float) -> bool:
        return False

    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Criterion | None = None,
    ) -> list[ClientProxy]:
        return []


def test_a_manager_of_flowers_six_methods_is_told_in_order() -> None:
    manager, then = _Plain(), []
    registrar = Registrar(manager, ManualClock().now)
    a, b = IdleProxy("a"), IdleProxy("b")
    registrar.online(a, lambda: then.append("a is there"))
    registrar.online(b, lambda: then.append("b is there"))
    registrar.away(a, "said bye", lambda: then.append("a is away"))
    # It knows nothing of that.
    registrar.gone(a, "its queue is gone", lambda: then.append("a is gone"))
    registrar.close()
    registrar.close()
    assert manager.told == [("register", "a"), ("register", "b"), ("unregister", "a")]
    assert then == ["a is there", "b is there", "a is away", "a is gone"]


def test_a_call_that_does_not_return_is_reported_every_half_minute_until_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go, within = threading.Event(), threading.Event()

    class Slow(SimpleClientManager):
        def register(self, client: ClientProxy) -> bool:
            within.set()
            go.wait(PATIENCE)
            return super().register(client)

    clock, manager, done = ManualClock(), Slow(), threading.Event()
    registrar = Registrar(manager, clock.now)
    registrar.online(IdleProxy("a"), done.set)
    assert within.wait(PATIENCE)
    reports = []
    for _ in range(8):
        clock.advance(10.0)
        registrar.tick()
        reports.append(len(caplog.records))
    assert reports == [0, 0, 0, 1, 1, 1, 1, 2]
    go.set()
    assert done.wait(PATIENCE)
    eventually(lambda: manager.num_available() == 1)
    registrar.close()
    clock.advance(3600.0)
    registrar.tick()
    assert len(caplog.records) == 2, "it has returned"


def test_the_end_does_not_wait_long_for_a_call_that_does_not_return(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flmq.server.presence.registrar._PATIENCE", 0.01)
    go, within = threading.Event(), threading.Event()

    class Stuck(SimpleClientManager):
        def register(self, client: ClientProxy) -> bool:
            within.set()
            return go.wait(PATIENCE)

    registrar = Registrar(Stuck(), ManualClock().now)
    registrar.online(IdleProxy("a"), lambda: None)
    assert within.wait(PATIENCE)
    registrar.close()
    assert "Stuck.register(a) has not come back, and is not waited for" in caplog.text
    go.set()
    monkeypatch.undo()
    registrar.close()
