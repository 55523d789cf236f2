"""Publishing tasks: who has not answered before is asked all the same, and said to be behind."""

from __future__ import annotations

import pytest

from flmq.observe.events import ClientOutcome, Outcome
from tests.end_to_end.federation import Federation, fed_avg


def test_who_is_still_behind_is_asked_and_said_to_be_behind(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    quick, slow = memory_federation.peer("quick"), memory_federation.peer("slow")
    server = memory_federation.run(fed_avg(2), rounds=4, timeout=1.0)
    tasks = []
    for number in range(4):
        quick.reply(quick.task())
        tasks.append(slow.task())
        if number == 2:
            for task in tasks[1:]:  # in time again
                slow.reply(task)
    server.history()
    outcomes = [o for o in server.watch.of(ClientOutcome) if o.client_id == "slow"]
    silent = {o.server_round: o.reason for o in outcomes if o.outcome is Outcome.SILENT}
    behind = "deadline; it has not answered round 1, fit yet either"
    assert silent == {1: "deadline", 2: behind, 4: "deadline"}
    said = [each for each in caplog.messages if "may still be at work" in each]
    assert [each.rpartition(": ")[2] for each in said] == [
        "slow (round 1, fit)",
        "slow (round 2, fit)",
    ]
