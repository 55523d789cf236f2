"""Replies that are combined as they come, within a phase: what is kept, and what breaks it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from flmq.common import FitIns, FitRes, ndarrays_to_parameters
from flmq.common.errors import AggregationError, FlmqError, ZeroWeight
from flmq.common.phase import Phase
from flmq.journal import JournalDamaged
from flmq.server.asks.phase_in_flight import Ask, PhaseInFlight, Request, Taken
from flmq.server.asks.request import NotAddedUp
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


def _gather(combine: WeightedMean, *clients: str) -> PhaseInFlight:
    asks = [Ask(client, _ins()) for client in clients]
    gather = PhaseInFlight.create(
        Request(Phase.FIT, 1, asks, None, sink=combine), label="test", now=0.0
    )
    gather.start()
    return gather


def _ins() -> FitIns:
    return FitIns(ndarrays_to_parameters([np.zeros(2)]), {})


def _feed(gather: PhaseInFlight, client: str, res: FitRes) -> None:
    reply = Reply("t", "job", 1, Phase.FIT, client, 1, b"", 0.0, res)
    taken = Taken(reply, 1, 1.0)
    gather.take(gather.judge(reply), taken)
    gather.absorb(taken, threading.Lock())


def test_what_is_kept_of_a_reply_that_was_added_up_is_empty_and_its_object_as_it_was() -> None:
    gather = _gather(WeightedMean(), "a", "b")
    res = fit_res(model(np.ones(2)), 1)
    _feed(gather, "a", res)
    assert not gather.done.is_set()
    _feed(gather, "b", res)  # one object for two clients: a simulation may do that
    assert gather.done.is_set()
    assert res.parameters == model(np.ones(2))
    gathered = gather.result()
    assert gathered.counts.accepted == 2
    for kept in gathered.replies.values():
        assert isinstance(kept, FitRes)
        assert (kept.num_examples, kept.parameters.tensors) == (1, [])
    assert gathered.error is None


@pytest.mark.parametrize("error", [ZeroWeight("none"), ValueError("odd")])
def test_whatever_breaks_the_sum_ends_the_round_with_an_error(error: Exception) -> None:
    """A round that waited for a reply to be added would wait for ever."""
    gather = _gather(_Breaks(error), "a")
    _feed(gather, "a", fit_res(model(np.ones(2)), 1))
    assert gather.done.is_set()
    problem = gather.result().error
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
    gather = _gather(_Breaks(error), "a")
    _feed(gather, "a", fit_res(model(np.ones(2)), 1))
    assert gather.done.is_set()
    problem = gather.result().error
    assert not isinstance(problem, AggregationError)
    if isinstance(error, FlmqError):
        assert problem is error
    else:
        assert isinstance(problem, NotAddedUp)
        assert type(error).__name__ in str(problem)
