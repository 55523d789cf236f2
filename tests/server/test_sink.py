"""The mean that is taken as replies come: the same bits as from all of them together."""

from __future__ import annotations

import errno
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import FitIns, FitRes, NDArrays, Parameters, ndarrays_to_parameters
from flmq.common.errors import AggregationError, FlmqError, InconsistentTensors, ZeroWeight
from flmq.common.phase import Phase
from flmq.journal import JournalDamaged
from flmq.server.asks.phase_in_flight import Ask, PhaseInFlight, Request, Taken
from flmq.server.asks.request import NotAddedUp
from flmq.server.replies.spool import SpoolFailed
from flmq.server.strategy import FedAvg
from flmq.server.strategy.sink import MeanSink, StreamedResults
from flmq.wire import Reply
from tests.server.proxies import IdleProxy, fit_res, model

Results = list[tuple[Any, FitRes]]


def results(count: int = 4) -> Results:
    rng = np.random.default_rng(5)
    return [
        (
            IdleProxy(f"c{number}"),
            fit_res(
                model(
                    rng.normal(size=50).astype(np.float32) * np.float32(10.0**number),
                    rng.normal(size=(3, 2)),
                    np.array(number * 7, np.int64),
                ),
                number + 1,
                {"loss": float(number)},
            ),
        )
        for number in range(count)
    ]


def test_every_order_gives_the_bits_of_all_together() -> None:
    together, _ = FedAvg().aggregate_fit(1, results(), [])
    assert together is not None
    for order in itertools.permutations(results()):
        sink = MeanSink()
        for _, res in order:
            sink.add(res)
        assert sink.mean() == together


def test_streamed_results_are_aggregated_from_their_sink() -> None:
    sink, strategy = MeanSink(), FedAvg()
    bare = results()
    for _, res in bare:
        sink.add(res)
        res.parameters = Parameters([], "numpy.ndarray")
    got = strategy.aggregate_fit(1, StreamedResults(bare, sink), [])
    assert got == strategy.aggregate_fit(1, results(), [])
    assert got[1] == {"loss": 2.0}


def test_a_sum_is_given_once_and_then_let_go() -> None:
    sink = MeanSink()
    with pytest.raises(ZeroWeight, match="no results"):
        sink.mean()
    sink.add(results()[0][1])
    sink.mean()
    with pytest.raises(ZeroWeight):
        sink.mean()


def test_a_reply_that_does_not_fit_leaves_the_sum_as_it_was() -> None:
    sink = MeanSink()
    (_, first), (_, second) = results(2)
    sink.add(first)
    with pytest.raises(InconsistentTensors):
        sink.add(fit_res(model(np.zeros(3)), 5))
    sink.add(second)
    together, _ = FedAvg().aggregate_fit(1, results(2), [])
    assert sink.mean() == together


# -- who is streamed


class _OwnFit(FedAvg):
    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return super().aggregate_fit(server_round, results, failures)


class _OwnParameters(FedAvg):
    def aggregate_parameters(self, server_round: int, replies: Any) -> NDArrays:
        return super().aggregate_parameters(server_round, replies)


class _OwnMetrics(FedAvg):
    def aggregate_metrics(self, results: Any, aggregation_fn: Any) -> Any:
        return {}


def test_only_the_mean_as_it_is_is_streamed() -> None:
    for streamed in (FedAvg(), _OwnMetrics()):
        assert isinstance(streamed.fit_sink(1, model(1.0)), MeanSink)
    for own in (_OwnFit(), _OwnParameters()):
        assert own.fit_sink(1, model(1.0)) is None


def test_a_function_put_in_the_place_of_a_method_gets_the_replies() -> None:
    for name in ("aggregate_fit", "aggregate_parameters"):
        patched = FedAvg()
        setattr(patched, name, lambda *_: (None, {}))
        assert patched.fit_sink(1, model(1.0)) is None


# -- in a round


class _Breaks(MeanSink):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def add(self, res: FitRes) -> None:
        raise self.error


def _gather(sink: MeanSink, *clients: str) -> PhaseInFlight:
    asks = [Ask(client, _ins()) for client in clients]
    gather = PhaseInFlight.create(
        Request(Phase.FIT, 1, asks, None, sink=sink), label="test", now=0.0
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


def test_what_is_kept_of_a_reply_that_is_in_the_sum_is_empty_and_its_object_as_it_was() -> None:
    gather = _gather(MeanSink(), "a", "b")
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
