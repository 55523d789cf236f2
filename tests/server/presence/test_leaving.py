"""The end of a run while there is no broker."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.client.serving.worker import WorkerOptions
from flmq.common import NDArrays, Scalar
from flmq.observe.events import RoundClosed
from flmq.transport import replies_queue
from flmq.transport.memory.publisher import MemoryPublisher
from tests.end_to_end.federation import Federation, fed_avg
from tests.transport.rigs import PATIENCE


def test_a_run_that_fails_while_the_broker_is_away_ends_all_the_same(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = memory_federation
    close = MemoryPublisher.close
    monkeypatch.setattr(MemoryPublisher, "close", lambda publisher: close(publisher, timeout=0.5))

    class Wrong(Exception):
        pass

    def wrong(server_round: int, tensors: NDArrays, config: dict[str, Scalar]) -> Any:
        if server_round == 1:
            federation.rig.down()
            raise Wrong

    federation.serve("a")
    server = federation.run(fed_avg(1, evaluate_fn=wrong))
    try:
        with pytest.raises(Wrong):
            server.history(timeout=40.0)
    finally:
        federation.rig.up()


def test_a_run_that_is_done_waits_for_the_broker_to_tell_its_clients(
    federation: Federation,
) -> None:
    """Else those that came for one job would wait for ever."""

    def evaluate(server_round: int, tensors: NDArrays, config: dict[str, Scalar]) -> Any:
        if server_round == 1:
            federation.rig.down()
        return 0.5, {}

    federation.serve("a", options=WorkerOptions(once=True))
    server = federation.run(fed_avg(1, evaluate_fn=evaluate))
    server.watch.wait_for(RoundClosed)
    assert not server.result.done()
    assert not federation.workers["a"].done.done()
    federation.rig.up()
    server.history()
    federation.workers["a"].done.result(PATIENCE)
    witness = federation.rig.witness()
    assert witness.inspect_queue(replies_queue("job")) is None
