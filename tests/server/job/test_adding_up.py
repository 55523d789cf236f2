"""Replies that are combined as they come, within a phase: what is kept, and what breaks it."""

from __future__ import annotations

import errno
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from flmq.common import FitIns, FitRes, ndarrays_to_parameters
from flmq.common.errors import AggregationError, FlmqError, ZeroWeight
from flmq.common.parameter import parameters_of
from flmq.common.phase import Phase
from flmq.journal import JournalDamaged
from flmq.round import JobState, PhaseKey
from flmq.round.job_events import PhaseOpened
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job.request import Ask, NotAddedUp, Request
from flmq.server.replies.reply_edges import ReplyEdges
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.server.replies.spool import SpoolFailed
from flmq.server.strategy.combine import WeightedMean
from flmq.wire import Reply
from tests.server.proxies import fit_res, model


class _Breaks(WeightedMean):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def add(self, client_id: str, res: FitRes) -> None:
        raise self.error


class Phase1:
    """A phase that asked ``clients``, and the loop that takes its replies."""

    def __init__(self, combine: WeightedMean, *clients: str) -> None:
        key = PhaseKey(1, Phase.FIT)
        request = Request(
            Phase.FIT, 1, [Ask(client, _ins()) for client in clients], None, sink=combine
        )
        self.loop = ReplyLoop(JobState(), ReplyEdges(lambda event: None, lambda: 1.0))
        self.phase = PhaseInFlight.begin(key, request, label="test", now=0.0)
        opened = PhaseOpened(key, {client: client for client in clients}, request.policy)
        self.loop.open(self.phase, lambda loop: [opened])

    def feed(self, client: str, res: FitRes) -> None:
        reply = Reply(client, "job", 1, Phase.FIT, client, 1, b"", 0.0, res)
        self.loop.take(reply, 1, None)
        self.loop.perform()


def _ins() -> FitIns:
    return FitIns(ndarrays_to_parameters([np.zeros(2)]), {})


def test_what_is_kept_of_a_reply_that_was_added_up_is_empty_and_its_object_as_it_was() -> None:
    phase = Phase1(WeightedMean(), "a", "b")
    res = fit_res(model(np.ones(2)), 1)
    phase.feed("a", res)
    assert not phase.phase.done.is_set()
    phase.feed("b", res)  # one object for two clients: a simulation may do that
    assert phase.phase.done.is_set()
    assert res.parameters == model(np.ones(2))
    result = phase.phase.result()
    assert result.counts.accepted == 2
    for kept in result.replies.values():
        assert isinstance(kept, FitRes)
        assert (kept.num_examples, kept.parameters.tensors) == (1, [])
    assert result.error is None


def test_a_phase_that_has_closed_lets_its_model_and_its_sum_go() -> None:
    """It is remembered for late replies; the model that it sent would be one more in memory."""
    combine = WeightedMean()
    phase = Phase1(combine, "a")
    phase.feed("a", fit_res(model(np.ones(2)), 1))
    sent = weakref.ref(parameters_of(phase.phase.request.asks[0].ins))
    summed = weakref.ref(combine)
    phase.phase.result()
    del combine
    gc.collect()
    assert sent() is None
    assert summed() is None


@pytest.mark.parametrize("error", [ZeroWeight("none"), ValueError("odd")])
def test_whatever_breaks_the_sum_ends_the_round_with_an_error(error: Exception) -> None:
    """A round that waited for a reply to be added would wait for ever."""
    phase = Phase1(_Breaks(error), "a")
    phase.feed("a", fit_res(model(np.ones(2)), 1))
    assert phase.phase.done.is_set()
    problem = phase.phase.result().error
    assert isinstance(problem, AggregationError)
    assert error in (problem, problem.__cause__)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EIO, "Input/output error"),
        SpoolFailed(Path("spool"), OSError(errno.EIO, "Input/output error")),
        JournalDamaged(Path("journal"), "is gone"),
    ],
)
def test_the_servers_own_trouble_in_adding_up_is_no_failure_of_the_round(error: Exception) -> None:
    """The round would leave the model as it was, and the run go on with other bits."""
    phase = Phase1(_Breaks(error), "a")
    phase.feed("a", fit_res(model(np.ones(2)), 1))
    assert phase.phase.done.is_set()
    problem = phase.phase.result().error
    assert not isinstance(problem, AggregationError)
    if isinstance(error, FlmqError):
        assert problem is error
    else:
        assert isinstance(problem, NotAddedUp)
        assert type(error).__name__ in str(problem)
