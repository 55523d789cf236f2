"""FedXgbBagging, FedXgbCyclic, FedXgbNnAvg: whose trees, in which order, and what is refused."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.common import FitRes, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import FedXgbBagging, FedXgbCyclic, FedXgbNnAvg, Strategy
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.trees.forest import Forest, InvalidTrees
from tests.server.proxies import IdleProxy, fit_res, manager_of
from tests.server.strategy.oracle import flower
from tests.server.strategy.trees.forests import stump, stumps

EMPTY = Parameters([], "")


def results(**replies: bytes) -> list[tuple[ClientProxy, FitRes]]:
    return [(IdleProxy(cid), fit_res(Parameters([data], ""), 1)) for cid, data in replies.items()]


def after(strategy: Strategy, model: Parameters, came: Sequence[Any]) -> Parameters:
    strategy.global_parameters = model
    made, _ = strategy.aggregate_fit(1, list(came), [])
    assert made is not None
    return made


def trees_of(model: Parameters) -> Any:
    (data,) = model.tensors
    return json.loads(data)["learner"]["gradient_booster"]["model"]


def weights_of(model: Parameters) -> list[float]:
    return [tree["base_weights"][2] for tree in trees_of(model)["trees"]]


# --- bagging


def test_bagging_appends_the_trees_of_all_clients_in_the_order_of_their_ids() -> None:
    strategy = FedXgbBagging()
    first = after(strategy, EMPTY, results(b=stumps(2.0), a=stumps(1.0)))
    assert weights_of(first) == [1.0, 2.0]
    second = after(strategy, first, results(b=stumps(4.0), a=stumps(3.0)))
    assert weights_of(second) == [1.0, 2.0, 3.0, 4.0]
    model = trees_of(second)
    assert [tree["id"] for tree in model["trees"]] == [0, 1, 2, 3]
    assert model["iteration_indptr"] == [0, 1, 2, 3, 4]
    assert model["gbtree_model_param"]["num_trees"] == "4"
    assert model["tree_info"] == [0, 0, 0, 0]


def test_every_order_gives_the_same_bits() -> None:
    came = results(a=stumps(1.0), b=stumps(2.0), c=stumps(3.0), d=stumps(4.0))
    made = {
        after(FedXgbBagging(), EMPTY, order).tensors[0] for order in itertools.permutations(came)
    }
    assert len(made) == 1


def test_in_the_order_of_ids_and_one_tree_a_round_the_model_is_flowers() -> None:
    theirs, ours = flower().FedXgbBagging(), FedXgbBagging()
    model = EMPTY
    for server_round in (1, 2):
        came = results(a=stumps(1.0 * server_round), b=stumps(2.5), c=stumps(-3.25))
        expected, _ = theirs.aggregate_fit(server_round, came, [])
        model = after(ours, model, came)
        assert json.loads(model.tensors[0]) == json.loads(expected.tensors[0])


def test_all_trees_of_a_reply_count_each_for_its_class() -> None:
    """Flower appends num_parallel_tree of them, here one, as of class 0."""
    model = stumps(1.0, 2.0, 3.0, classes=(0, 1, 2), per_round=3)
    twice = stumps(*range(4, 10), classes=(0, 1, 2, 0, 1, 2), per_round=3)
    made = after(FedXgbBagging(), Parameters([model], ""), results(a=twice))
    assert weights_of(made) == [1.0, 2.0, 3.0, 4, 5, 6, 7, 8, 9]
    assert trees_of(made)["tree_info"] == [0, 1, 2] * 3
    assert trees_of(made)["iteration_indptr"] == [0, 3, 6, 9]


def test_trees_for_other_features_fail_the_round_and_say_whose() -> None:
    with pytest.raises(InvalidTrees, match=r"the trees of b: its objective.*do not add up"):
        after(FedXgbBagging(), EMPTY, results(a=stumps(1.0), b=stumps(1.0, features=9)))


def _changed(change: Callable[[Any], object]) -> bytes:
    document = json.loads(stumps(1.0, 2.0))
    change(document["learner"]["gradient_booster"]["model"])
    return json.dumps(document).encode()


def _tree(**changes: Any) -> bytes:
    return _changed(lambda model: model["trees"].__setitem__(1, {**stump(1.0), **changes}))


HOSTILE = {
    "nothing": b"",
    "not JSON": b"\x80\x05pickle",
    "not text": b"\xff\xfe",
    "no object": b"[]",
    "null": b"null",
    "nested too deeply": b"[" * 100_000,
    "a number too long": b"1" * 100_000,
    "another object": b'{"learner": {"gradient_booster": 3}}',
    "a text as trees": _changed(lambda model: model.update(trees="ab")),
    "more trees than it says": _changed(lambda model: model["trees"].append(stump(1.0))),
    "too few classes": _changed(lambda model: model["tree_info"].pop()),
    "a class that is none": _changed(lambda model: model.update(tree_info=[0, "1"])),
    "a class beyond all": _changed(lambda model: model.update(tree_info=[0, 10**9])),
    "no rounds": _changed(lambda model: model.update(iteration_indptr=[])),
    "rounds backwards": _changed(lambda model: model.update(iteration_indptr=[0, 2, 1, 2])),
    "rounds in fractions": _changed(lambda model: model.update(iteration_indptr=[0, 0.5, 2])),
    "num_trees is a list": _changed(
        lambda model: model["gbtree_model_param"].update(num_trees=[2])
    ),
    "a tree that is none": _changed(lambda model: model["trees"].__setitem__(0, 7)),
    "a child that is not there": _tree(left_children=[7, -1, -1]),
    "a child before the root": _tree(left_children=[-2, -1, -1]),
    "a circle": _tree(left_children=[1, 0, -1], right_children=[2, 2, -1]),
    "one child twice": _tree(right_children=[1, -1, -1]),
    "a root with a parent": _tree(parents=[1, 0, 0]),
    "too few nodes": _tree(split_conditions=[0.5]),
    "no feature of the model": _tree(split_indices=[4, 0, 0]),
    "booleans for numbers": _tree(left_children=[True, -1, -1]),
    "size NaN": _tree(tree_param={"num_nodes": float("nan")}),
    "no nodes": _tree(tree_param={"num_nodes": "0"}),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_reply_that_is_no_such_model_is_refused(data: bytes) -> None:
    strategy = FedXgbBagging()
    reason = strategy.check_fit_res(fit_res(Parameters([data], ""), 1))
    assert reason is not None
    assert 'save_raw("json")' in reason
    with pytest.raises(InvalidTrees, match="the trees of a"):
        after(strategy, EMPTY, results(a=data))


def test_a_reply_that_is_such_a_model_is_not() -> None:
    assert FedXgbBagging().check_fit_res(fit_res(Parameters([stumps(1.0, 2.0)], ""), 1)) is None
    assert "no trees came" in str(FedXgbBagging().check_fit_res(fit_res(EMPTY, 1)))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_stands_anywhere_in_a_model_it_is_read_or_refused(data: st.DataObject) -> None:
    """Replace a value anywhere in a model: no other exception than InvalidTrees gets out."""
    document: Any = json.loads(stumps(1.0, 2.0))
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        below = place[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            break
        place = below
    place[key] = data.draw(_JSON)
    with contextlib.suppress(InvalidTrees):
        Forest.read(json.dumps(document).encode()).append(Forest.read(stumps(3.0)))


def test_bagging_evaluates_trees_by_a_function_of_its_own() -> None:
    seen: list[Any] = []

    def evaluate(server_round: int, parameters: Any, config: Any) -> Any:
        seen.append((server_round, parameters, config))
        return 0.25, {"auc": 0.9}

    assert FedXgbBagging(evaluate).evaluate(3, EMPTY) == (0.25, {"auc": 0.9})
    assert seen == [(3, EMPTY, {})]
    assert FedXgbBagging().evaluate(3, EMPTY) is None
    with pytest.raises(InvalidStrategyOption, match="give evaluate_function"):
        FedXgbBagging(evaluate_fn=evaluate)


# --- cyclic


def test_in_a_cycle_each_client_takes_its_turn() -> None:
    strategy = FedXgbCyclic(min_fit_clients=3, min_evaluate_clients=3, min_available_clients=3)
    manager = manager_of("c", "a", "b")
    model = Parameters([b"any bytes"], "")
    trains = [strategy.configure_fit(n, model, manager) for n in range(1, 6)]
    assert [[client.cid for client, _ in chosen] for chosen in trains] == [
        ["a"],
        ["b"],
        ["c"],
        ["a"],
        ["b"],
    ]
    ((client, ins),) = strategy.configure_evaluate(2, model, manager)
    assert (client.cid, ins.parameters) == ("b", model)


def test_the_reply_is_the_model() -> None:
    strategy = FedXgbCyclic()
    made = after(strategy, EMPTY, results(a=b"\x00ubj"))
    assert made == Parameters([b"\x00ubj"], "")
    assert after(strategy, made, results(b=b"two", a=b"one")).tensors == [b"two"]
    assert strategy.check_fit_res(fit_res(made, 1)) is None
    for nothing in (EMPTY, Parameters([b""], "")):
        assert "no model came" in str(strategy.check_fit_res(fit_res(nothing, 1)))


# --- networks over trees


def network(value: float, trees: bytes) -> Parameters:
    arrays = ndarrays_to_parameters([np.full(2, value, np.float32), np.array(4, np.int64)])
    return Parameters([*arrays.tensors, trees], "")


def test_networks_are_averaged_and_trees_collected() -> None:
    came = [
        (IdleProxy("b"), fit_res(network(4.0, b"trees of b"), 1)),
        (IdleProxy("a"), fit_res(network(1.0, b"trees of a"), 2)),
    ]
    made = after(FedXgbNnAvg(), EMPTY, came)
    assert made == after(FedXgbNnAvg(), EMPTY, came[::-1])
    arrays = parameters_to_ndarrays(Parameters(made.tensors[:2], "numpy.ndarray"))
    assert arrays[0].tolist() == [2.0, 2.0]
    assert arrays[1] == 4
    assert [each.dtype for each in arrays] == [np.float32, np.int64]
    assert made.tensors[2:] == [b"trees of a", b"trees of b"]


def test_a_reply_without_arrays_that_are_finite_and_trees_is_refused() -> None:
    strategy = FedXgbNnAvg()
    assert strategy.check_fit_res(fit_res(network(1.0, b"trees"), 1)) is None
    for parameters, told in (
        (network(1.0, b""), "2 arrays and 1 other"),
        (network(float("nan"), b"trees"), "tensor 0 holds NaN or infinity"),
        (Parameters(network(1.0, b"trees").tensors[:2], ""), "2 arrays and 0 other"),
        (Parameters([*network(1.0, b"trees").tensors, b"more"], ""), "2 arrays and 2 other"),
    ):
        assert told in str(strategy.check_fit_res(fit_res(parameters, 1)))


def test_its_evaluate_fn_gets_the_parameters_as_they_are() -> None:
    seen: list[Any] = []
    strategy = FedXgbNnAvg(evaluate_fn=lambda n, parameters, config: seen.append(parameters))
    assert strategy.evaluate(1, network(1.0, b"trees")) is None
    assert seen == [network(1.0, b"trees")]
