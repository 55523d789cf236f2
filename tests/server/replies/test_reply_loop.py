"""The loop that performs what the job's state decided: what interrupts it, and what it leaves."""

from __future__ import annotations

import pytest

from flmq.common import FitIns, FitRes, Parameters, Status
from flmq.common.phase import Phase
from flmq.common.typing import Code
from flmq.round import JobState, PhaseKey
from flmq.round.job_events import PhaseOpened
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job.request import Ask, Request
from flmq.server.replies.outcomes import NobodyListens
from flmq.server.replies.reply_edges import ReplyEdges
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.wire import Reply

KEY = PhaseKey(1, Phase.FIT)


class Raises:
    """What a strategy combines replies in, and is stopped or faulty in it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def add(self, client_id: str, res: FitRes) -> None:
        raise self.error

    def merge(self, other: object, /) -> None:
        raise self.error


def _opened(error: BaseException) -> tuple[ReplyLoop, PhaseInFlight]:
    ask = Ask("a", FitIns(Parameters([], ""), {}))
    request = Request(Phase.FIT, 1, [ask], None, sink=Raises(error))
    loop = ReplyLoop(JobState(), ReplyEdges(lambda event: None, lambda: 0.0))
    phase = PhaseInFlight.begin(KEY, request, label="test", now=0.0)
    loop.open(phase, lambda loop: [PhaseOpened(KEY, {"a": "a"}, request.policy)])
    res = FitRes(Status(Code.OK, ""), Parameters([], ""), 1, {})
    loop.take(Reply("a", "job", 1, Phase.FIT, "a", 1, b"", 0.0, res), 1, None)
    return loop, phase


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        # Ctrl-C while a reply is added up is the person's, and no fault.
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(3), NobodyListens),
    ],
)
def test_whoever_waits_is_woken_and_learns_what_it_was(
    error: BaseException, raised: type[BaseException]
) -> None:
    loop, phase = _opened(error)
    with pytest.raises(raised):
        loop.perform()
    assert phase.done.is_set()
    with pytest.raises(NobodyListens):  # and nothing is taken in any more
        loop.perform()
