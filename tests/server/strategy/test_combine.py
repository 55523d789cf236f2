"""Combining: the same bits for every order of replies and every tree of merges."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common import FitRes, NDArrays, Parameters, parameters_to_ndarrays
from flmq.common.errors import (
    AggregationError,
    InconsistentTensors,
    NonFiniteValues,
    ZeroWeight,
)
from flmq.server.strategy import FedAvg, LateFitRes
from flmq.server.strategy.blockwise import Replies, coordinate_wise
from flmq.server.strategy.combine import AllReplies, Combine, Combined, NotCombined, WeightedMean
from flmq.server.strategy.streaming import StreamedResults
from tests.server.proxies import OK, IdleProxy, fit_res, model

Results = list[tuple[str, FitRes]]


def results(count: int = 4) -> Results:
    rng = np.random.default_rng(5)
    return [
        (
            f"c{number}",
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


def flower(pairs: Results) -> list[Any]:
    """The same as a strategy's ``results``."""
    return [(IdleProxy(client_id), res) for client_id, res in pairs]


def krum(replies: Replies) -> Combined:
    """The reply that is nearest to all others, by blocks of few numbers."""
    distances = np.zeros((len(replies), len(replies)))
    for index in range(len(replies.specs)):
        for _, values in replies.blocks(index, block_bytes=100):
            exact = values.astype(np.float64)
            distances += ((exact[:, None] - exact[None]) ** 2).sum(axis=2)
    chosen = WeightedMean()
    chosen.add(*replies[int(distances.sum(axis=1).argmin())])
    return chosen.finish()


MAKERS: dict[str, Callable[[], Combine]] = {
    "mean": WeightedMean,
    "median": lambda: AllReplies(coordinate_wise(lambda values: np.median(values, axis=0), 100)),
    "one chosen by distance": lambda: AllReplies(krum),
}


def combined(make: Callable[[], Combine], pairs: Sequence[tuple[str, FitRes]]) -> Parameters:
    whole = make()
    for client_id, res in pairs:
        whole.add(client_id, res)
    return whole.finish().parameters()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@given(data=st.data())
def test_every_order_and_every_tree_of_merges_has_the_same_bits(
    make: Callable[[], Combine], data: st.DataObject
) -> None:
    expected = combined(make, results(5))
    parts: list[Combine] = [make() for _ in range(data.draw(st.integers(1, 4)))]
    for client_id, res in data.draw(st.permutations(results(5))):
        data.draw(st.sampled_from(parts)).add(client_id, res)
    while len(parts) > 1:
        part = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        into = data.draw(st.sampled_from(parts))
        into.merge(part)
    got = parts[0].finish()
    assert (got.num_replies, got.num_examples) == (5, 15)
    assert got.parameters() == expected


def test_merging_leaves_the_other_as_it_is() -> None:
    for make in MAKERS.values():
        one, other = make(), make()
        for client_id, res in results(3):
            other.add(client_id, res)
        one.merge(other)
        one.merge(make())
        assert one.finish().parameters() == other.finish().parameters()


def test_a_mean_is_what_fed_avg_makes_of_all_together() -> None:
    together, _ = FedAvg().aggregate_fit(1, flower(results()), [])
    assert together is not None
    for order in itertools.permutations(results()):
        assert combined(WeightedMean, order) == together


def test_streamed_results_are_aggregated_from_what_took_them_in() -> None:
    combine, strategy = WeightedMean(), FedAvg()
    bare = results()
    for client_id, res in bare:
        combine.add(client_id, res)
        res.parameters = Parameters([], "numpy.ndarray")
    got = strategy.aggregate_fit(1, StreamedResults(flower(bare), combine), [])
    assert got == strategy.aggregate_fit(1, flower(results()), [])
    assert got[1] == {"loss": 2.0}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_replies_are_combined_once_and_then_let_go(make: Callable[[], Combine]) -> None:
    combine = make()
    with pytest.raises(ZeroWeight, match="no results"):
        combine.finish()
    combine.add(*results()[0])
    came_to = combine.finish()
    with pytest.raises(ZeroWeight):
        combine.finish()
    assert came_to.parameters() == came_to.parameters(), "it can be looked at twice"


def test_a_reply_that_does_not_fit_is_named_and_leaves_the_mean_as_it_was() -> None:
    combine = WeightedMean()
    first, second = results(2)
    combine.add(*first)
    with pytest.raises(InconsistentTensors, match=r"the reply of odd: .*1 tensors where 3"):
        combine.add("odd", fit_res(model(np.zeros(3)), 5))
    with pytest.raises(NonFiniteValues, match="the reply of nan: tensor 0"):
        combine.add("nan", fit_res(model(np.full(50, np.nan, np.float32), *_rest()), 5))
    combine.add(*second)
    together, _ = FedAvg().aggregate_fit(1, flower(results(2)), [])
    came_to = combine.finish()
    assert (came_to.parameters(), came_to.num_examples) == (together, 3)


def _rest() -> NDArrays:
    return parameters_to_ndarrays(results(1)[0][1].parameters)[1:]


def test_what_is_averaged_of_a_reply_may_be_another_thing() -> None:
    class Clipped(WeightedMean):
        def contribution(self, client_id: str, res: FitRes) -> tuple[NDArrays, int]:
            tensors, _ = super().contribution(client_id, res)
            return [np.clip(tensor, -1, 1) for tensor in tensors], 1

    combine = Clipped()
    combine.add("a", fit_res(model([5.0, 0.5]), 10))
    combine.add("b", fit_res(model([-1.0, 0.0]), 30))
    came_to = combine.finish()
    assert came_to.ndarrays()[0].tolist() == [0.0, 0.25]
    assert (came_to.num_replies, came_to.num_examples) == (2, 40)


def test_replies_without_a_rule_are_passed_on_in_order() -> None:
    combine = AllReplies()
    late = LateFitRes(OK, model(1.0), 2, {}, server_round=1)
    own = fit_res(model(2.0), 2)
    for client_id, res in (("b", own), ("a", own), ("b", late)):
        combine.add(client_id, res)
    came_to = combine.finish()
    assert came_to.replies is not None
    assert list(came_to.replies) == [("a", own), ("b", late), ("b", own)]
    assert came_to.replies[1:] == [("b", late), ("b", own)]
    with pytest.raises(NotCombined, match=r"give AllReplies a rule"):
        came_to.ndarrays()


def test_replies_of_one_client_stand_by_their_content() -> None:
    """A client may be asked twice in a round."""
    one, other = (("a", fit_res(model(value), 1)) for value in (1.0, 2.0))
    assert list(Replies([one, other])) == list(Replies([other, one]))


def test_an_error_of_one_tree_is_an_aggregation_error() -> None:
    odd = [*results(2), ("odd", fit_res(model(np.zeros(3)), 5))]
    for make in MAKERS.values():
        with pytest.raises(AggregationError, match="odd"):
            combined(make, odd)
