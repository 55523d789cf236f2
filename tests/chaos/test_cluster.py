"""A three-node cluster loses the node that leads the reply queue, in the middle of a round."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.transport import replies_queue
from tests.chaos.cluster import Cluster
from tests.chaos.program import Variant
from tests.chaos.run import JOB, Run, play, until, until_over
from tests.chaos.schedule import Schedule
from tests.chaos.supervisor import Supervisor
from tests.chaos.verdict import check


@pytest.mark.slow
def test_the_node_that_leads_the_reply_queue_may_die(tmp_path: Path) -> None:
    """First while everybody trains, then while replies are under way."""

    def script(supervisor: Supervisor, run: Run) -> None:
        until(lambda: len(run.begun()) >= 3, "everybody trains")
        first = cluster.leader(replies_queue(JOB))
        cluster.kill(first)
        run.gate.touch()
        cluster.start(first)
        until(lambda: len(run.done()) >= 7, "somebody trains in round 2")
        cluster.kill(cluster.leader(replies_queue(JOB)))
        # Clients' queues are no replicated ones: those that stood there come back with the node.
        cluster.calm()
        until_over(supervisor, run)

    with Cluster() as cluster:
        schedule = Schedule(1, Variant.LARGE, rounds=4, training_seconds=0.5)
        run = play(cluster, schedule, tmp_path / "run", script=script)
        assert check(run) == []
