"""A worker that is told to stop, whatever its broker does."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from flmq.transport import REPLIES, Address, Message, reply_key
from tests.end_to_end.federation import Federation, nudge
from tests.transport.rigs import PATIENCE, eventually


def test_it_stops_while_its_replies_wait_for_a_broker_that_is_away(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of clients that ask for their receipts fill the window in which a bye has room."""
    monkeypatch.setattr("flmq.client.serving.worker._BYES", 0.1)
    running = memory_federation.worker({"a": {}, "b": {}}, nudge)
    eventually(lambda: hasattr(running.worker, "_inbox"))
    publisher: Any = running.worker._publisher
    monkeypatch.setattr(publisher, "close", partial(publisher.close, timeout=0.1))
    memory_federation.rig.down()
    full = threading.Thread(target=_fill, args=(publisher,), daemon=True)
    full.start()
    eventually(lambda: publisher._window.is_full())
    running.worker.stop()
    running.done.result(PATIENCE)
    memory_federation.rig.up()


def _fill(publisher: Any) -> None:
    for _ in range(1000):
        publisher.publish(Address(REPLIES, reply_key("main", "a", "job")), Message(b"reply"))
