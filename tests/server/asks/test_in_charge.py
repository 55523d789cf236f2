"""A job has one server, and replies are to what that one asked."""

from __future__ import annotations

import pytest

from flmq.common.errors import (
    InvalidJobName,
    JobInUse,
)
from flmq.observe.events import (
    Outcome,
)
from tests.end_to_end.federation import Federation, fed_avg


def test_a_job_has_one_server_and_is_free_after_it(federation: Federation) -> None:
    peer = federation.peer("peer")
    first = federation.run(fed_avg(1))
    task = peer.task()
    federation.peers.clear()  # the refused one calls no roll
    with pytest.raises(JobInUse) as info:
        federation.run(fed_avg(1)).history()
    assert info.value.job == "job"
    peer.reply(task)
    first.history()  # unharmed
    federation.peers.append(peer)
    third = federation.run(fed_avg(1))
    peer.reply(peer.task())
    third.history()


@pytest.mark.parametrize("job", ["", "x" * 65, "a.b", "a b", "#", "*"])
def test_a_job_name_that_fits_no_queue_is_refused(memory_federation: Federation, job: str) -> None:
    with pytest.raises(InvalidJobName):
        memory_federation.run(fed_avg(1), job=job).history()


def test_a_reply_to_an_earlier_job_of_the_name_is_refused(federation: Federation) -> None:
    peer = federation.peer("peer")
    first = federation.run(fed_avg(1))
    task = peer.task()
    peer.reply(task)
    first.history()
    second = federation.run(fed_avg(1))
    fresh = peer.task()
    peer.reply(task)
    (incoming,) = federation.dead(1)
    assert "answers a task that nobody sent" in str(incoming.message.headers["x-flmq-reason"])
    peer.reply(fresh)
    second.history()
    assert second.watch.words() == {"peer": [Outcome.ACCEPTED]}
