"""Whole runs over both transports: the same bits, whatever the order and whatever is cut."""

from __future__ import annotations

from flmq.server.events import RoundCounts
from tests.end_to_end.federation import Federation, fed_avg


def test_a_run_trains_evaluates_and_ends_with_its_history(federation: Federation) -> None:
    federation.serve("a", "b", "c")
    server = federation.run(fed_avg(3, fraction_evaluate=1.0), rounds=2)
    history = server.history()
    assert [server_round for server_round, _ in history.losses_distributed] == [1, 2]
    assert set(history.metrics_distributed) == {"accuracy"}
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=3, accepted=3)] * 2
    assert [r.evaluate for r in server.watch.rounds()] == [RoundCounts(asked=3, accepted=3)] * 2
