"""Clients' clocks are compared with ours, by what they say of themselves."""

from __future__ import annotations

import time
from collections.abc import Callable

from flmq.cli.clocks import clocks_of_clients
from flmq.client.options import WorkerOptions
from flmq.testing import MemoryBroker, MemoryTransport
from tests.end_to_end.federation import Federation
from tests.security.federations import CLIENTS, protected_worker
from tests.transport.rigs import eventually


def _wrong_by(seconds: float) -> Callable[[], float]:
    return lambda: time.time() + seconds


def test_a_clock_that_is_wrong_is_named_of_signed_and_plain_clients(
    federation: Federation,
) -> None:
    protected_worker(federation, "a")
    for name, off in (("plain", 0.0), ("early", -40.0), ("late", 3700.0)):
        federation.serve(name, options=WorkerOptions(heartbeat=0.3), unix_clock=_wrong_by(off))
    found: list[str] = []

    def is_complete() -> bool:
        check = clocks_of_clients(federation.rig.transport, 1.5)
        found[:] = [check.found]
        return check.ok is False and check.found.startswith("2 of 4 clients")

    eventually(is_complete)
    assert found[0].endswith("late is 3700 s ahead, early is 40 s behind")


def test_clocks_that_agree_are_well_and_silence_is_said(memory_federation: Federation) -> None:
    memory_federation.serve(*CLIENTS, options=WorkerOptions(heartbeat=0.1))
    eventually(lambda: clocks_of_clients(memory_federation.rig.transport, 0.5).ok is True)
    nobody = clocks_of_clients(lambda: MemoryTransport(MemoryBroker()), 0.1)
    assert nobody.ok is None
    assert "--listen 35" in clocks_of_clients(memory_federation.rig.transport, 0.0).mend


def test_what_is_no_presence_is_passed_over(memory_federation: Federation) -> None:
    memory_federation.serve("a", options=WorkerOptions(heartbeat=0.1))
    peer = memory_federation.peer("b")
    eventually(lambda: clocks_of_clients(memory_federation.rig.transport, 0.5).ok is True)
    peer.hello()  # says no time of its own: it is not judged
    check = clocks_of_clients(memory_federation.rig.transport, 0.5)
    assert check.found == "those of 1 clients agree with ours within 5 s"
