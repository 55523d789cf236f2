"""Federated averaging: whom it asks, what it tells them, and the mean of what they send."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.common import (
    EvaluateRes,
    FitRes,
    Metrics,
    NDArrays,
    Parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.errors import InvalidReturnValue, NotEnoughClients, ZeroWeight
from flmq.server.client_manager import SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import Combined, FedAvg
from tests.server.proxies import IdleProxy, evaluate_res, fit_res, model, once_it_waits
from tests.server.strategy.oracle import Reply, same_as_flower

MODEL = model(np.zeros((2, 2), np.float32), np.zeros(2, np.float32))

FitResults = list[tuple[ClientProxy, FitRes]]


def manager_of(number: int, wait_timeout: float = 0.0) -> SimpleClientManager:
    manager = SimpleClientManager(seed=1, wait_timeout=wait_timeout)
    for index in range(number):
        manager.register(IdleProxy(f"client-{index}"))
    return manager


def replies(*weighted: tuple[list[Any], int]) -> FitResults:
    return [
        (IdleProxy(f"client-{index}"), fit_res(model(*tensors), num_examples))
        for index, (tensors, num_examples) in enumerate(weighted)
    ]


# --- the constructor


def test_arguments_and_defaults_are_flowers() -> None:
    """Read off flwr 1.41's ``inspect.signature(FedAvg)``."""
    parameters = inspect.signature(FedAvg).parameters.values()
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)
    assert {p.name: p.default for p in parameters} == {
        "fraction_fit": 1.0,
        "fraction_evaluate": 1.0,
        "min_fit_clients": 2,
        "min_evaluate_clients": 2,
        "min_available_clients": 2,
        "evaluate_fn": None,
        "on_fit_config_fn": None,
        "on_evaluate_config_fn": None,
        "accept_failures": True,
        "initial_parameters": None,
        "fit_metrics_aggregation_fn": None,
        "evaluate_metrics_aggregation_fn": None,
        "inplace": True,
        # Our own, after Flower's.
        "cast": None,
        "criterion": None,
    }


@pytest.mark.parametrize("inplace", [True, False])
def test_it_makes_the_models_that_flowers_makes(inplace: bool) -> None:
    rng = np.random.default_rng(3)

    def arrays() -> NDArrays:
        return [rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=4)]

    rounds: list[list[Reply]] = [[(arrays(), n) for n in (1, 7, 30)] for _ in range(3)]
    same_as_flower(FedAvg, arrays(), rounds, inplace=inplace)


def test_it_shows_itself_as_flowers_does() -> None:
    assert repr(FedAvg(accept_failures=False)) == "FedAvg(accept_failures=False)"


@pytest.mark.parametrize(
    "options",
    [
        {"fraction_fit": -0.1},
        {"fraction_evaluate": 1.5},
        {"fraction_fit": float("nan")},
        {"min_fit_clients": -1},
        {"min_available_clients": -1},
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*: give"):
        FedAvg(**options)


def test_it_warns_where_a_round_could_begin_with_too_few(caplog: pytest.LogCaptureFixture) -> None:
    FedAvg(min_fit_clients=2, min_evaluate_clients=2, min_available_clients=2)
    assert caplog.records == []
    FedAvg(min_fit_clients=3, min_available_clients=2)
    assert "min_available_clients is 2, below the 3 clients" in caplog.text


def test_numbers_of_clients_agree_with_flowers() -> None:
    """Recorded from flwr 1.41 with the same options."""
    strategy = FedAvg(
        fraction_fit=0.3, fraction_evaluate=0.05, min_fit_clients=4, min_available_clients=5
    )
    fit = [strategy.num_fit_clients(n) for n in (0, 10, 13, 14, 100)]
    evaluate = [strategy.num_evaluation_clients(n) for n in (0, 39, 40, 60)]
    assert fit == [(4, 5), (4, 5), (4, 5), (4, 5), (30, 5)]
    assert evaluate == [(2, 5), (2, 5), (2, 5), (3, 5)]


def test_initial_parameters_are_given_once_and_not_kept() -> None:
    strategy = FedAvg(initial_parameters=MODEL)
    assert strategy.initialize_parameters(manager_of(0)) is MODEL
    assert strategy.initial_parameters is None
    assert FedAvg().initialize_parameters(manager_of(0)) is None


# --- subclasses, as Flower's users write them


def test_a_subclass_with_a_constructor_of_its_own() -> None:
    class Saving(FedAvg):
        def __init__(self, folder: str, **options: Any) -> None:
            super().__init__(**options)
            self.folder = folder

        def configure_fit(
            self, server_round: int, parameters: Parameters, client_manager: Any
        ) -> Any:
            pairs = super().configure_fit(server_round, parameters, client_manager)
            pairs[0][1].config["lr"] = 0.5
            return pairs

    strategy = Saving("models", fraction_fit=0.5, min_fit_clients=1)
    assert (strategy.folder, strategy.fraction_fit, strategy.fraction_evaluate) == (
        "models",
        0.5,
        1.0,
    )
    configs = [ins.config for _, ins in strategy.configure_fit(1, MODEL, manager_of(4))]
    assert configs == [{"lr": 0.5}, {}], "an edit of one client's config is that client's alone"


def test_a_subclass_with_options_of_its_own_repeats_none() -> None:
    @dataclass(kw_only=True, eq=False, repr=False)
    class Damped(FedAvg):
        damping: float

        def update(
            self, server_round: int, parameters: Parameters, combined: Combined
        ) -> Parameters:
            return ndarrays_to_parameters(
                [(self.damping * tensor).astype(tensor.dtype) for tensor in combined]
            )

    strategy = Damped(damping=0.5, min_fit_clients=1)
    parameters, _ = strategy.aggregate_fit(1, replies(([[2.0]], 1), ([[4.0]], 1)), [])
    assert parameters is not None
    assert parameters_to_ndarrays(parameters)[0].tolist() == [1.5]
    assert (repr(strategy), strategy.min_fit_clients) == ("Damped(accept_failures=True)", 1)


# --- whom it asks


def test_each_client_that_trains_gets_the_same_model_and_a_config_of_its_own() -> None:
    strategy = FedAvg(on_fit_config_fn=lambda server_round: {"round": server_round})
    pairs = strategy.configure_fit(3, MODEL, manager_of(5))
    assert sorted(client.cid for client, _ in pairs) == [f"client-{n}" for n in range(5)]
    assert all(ins.parameters is MODEL for _, ins in pairs)
    assert all(ins.config == {"round": 3} for _, ins in pairs)
    assert len({id(ins) for _, ins in pairs}) == len({id(ins.config) for _, ins in pairs}) == 5


def test_each_client_that_measures_gets_a_config_of_its_own() -> None:
    strategy = FedAvg(
        fraction_evaluate=0.5, on_evaluate_config_fn=lambda server_round: {"batches": 4}
    )
    pairs = strategy.configure_evaluate(1, MODEL, manager_of(6))
    assert len(pairs) == 3
    pairs[0][1].config["batches"] = 8
    assert [ins.config["batches"] for _, ins in pairs] == [8, 4, 4]


def test_what_clients_are_told_is_worked_out_when_they_are_all_here() -> None:
    told = []

    def config(server_round: int) -> Metrics:
        told.append(manager.num_available())
        return {}

    class Waits(SimpleClientManager):
        """Somebody comes while clients are waited for."""

        def sample(self, *arguments: Any, **options: Any) -> Any:
            while self.num_available() < 3:
                self.register(IdleProxy(f"late-{self.num_available()}"))
            return super().sample(*arguments, **options)

    manager = Waits(seed=1)
    strategy = FedAvg(
        min_available_clients=3, on_fit_config_fn=config, on_evaluate_config_fn=config
    )
    assert len(strategy.configure_fit(1, MODEL, manager)) == 3
    manager = Waits(seed=1)
    assert len(strategy.configure_evaluate(1, MODEL, manager)) == 3
    assert told == [3, 3]


def test_nobody_measures_where_the_fraction_is_zero() -> None:
    strategy = FedAvg(fraction_evaluate=0.0, min_evaluate_clients=2)
    assert strategy.configure_evaluate(1, MODEL, manager_of(0)) == []


def test_a_function_of_the_user_does_not_share_its_dictionary_with_clients() -> None:
    shared: Metrics = {"lr": 0.1}
    pairs = FedAvg(on_fit_config_fn=lambda _: shared).configure_fit(1, MODEL, manager_of(2))
    pairs[0][1].config["lr"] = 0.9
    assert shared == {"lr": 0.1}


def test_too_few_clients_are_an_error_that_counts_them() -> None:
    with pytest.raises(NotEnoughClients) as error:
        FedAvg(min_available_clients=4).configure_fit(1, MODEL, manager_of(3))
    assert (error.value.wanted, error.value.have) == (4, 3)


def test_the_fraction_is_of_those_who_are_there_once_enough_are() -> None:
    """Ten clients come while it waits: ten train, not the three that were there before."""
    manager = manager_of(3, wait_timeout=60)
    late = [IdleProxy(f"client-{index}") for index in range(3, 10)]
    with once_it_waits(lambda: [manager.register(client) for client in late]):
        pairs = FedAvg(min_available_clients=10).configure_fit(1, MODEL, manager)
    assert len(pairs) == 10


def test_the_same_round_asks_the_same_clients_again() -> None:
    strategy = FedAvg(fraction_fit=0.3)
    chosen = []
    for manager in (manager_of(20), manager_of(20)):
        manager.begin(11, 4, "fit")
        chosen.append([client.cid for client, _ in strategy.configure_fit(4, MODEL, manager)])
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 6


@pytest.mark.parametrize("returned", [None, [("lr", 0.1)], {"lr": None}, {1: 2.0}])
def test_a_config_function_that_returns_something_else_is_named(returned: Any) -> None:
    strategy = FedAvg(on_fit_config_fn=lambda _: returned)
    with pytest.raises(InvalidReturnValue, match=r"on_fit_config_fn\(1\)"):
        strategy.configure_fit(1, MODEL, manager_of(2))


# --- what it makes of the answers


def test_the_new_model_is_the_mean_by_examples() -> None:
    """Three clients on paper: (1*1 + 3*2 + 4*4) / 8 = 2.875, (1*0 + 3*8 + 4*2) / 8 = 4."""
    results = replies(([[1.0, 0.0]], 1), ([[2.0, 8.0]], 3), ([[4.0, 2.0]], 4))
    parameters, metrics = FedAvg().aggregate_fit(1, results, [])
    assert parameters is not None
    assert parameters_to_ndarrays(parameters)[0].tolist() == [2.875, 4.0]
    assert metrics == {}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_shapes_and_dtypes_are_kept(dtype: type) -> None:
    tensors: NDArrays = [np.ones((2, 3), dtype), np.array(4, dtype), np.zeros((0, 2), dtype)]
    parameters, _ = FedAvg().aggregate_fit(1, replies((tensors, 1), (tensors, 2)), [])
    assert parameters is not None
    for got, sent in zip(parameters_to_ndarrays(parameters), tensors, strict=True):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert got.tolist() == sent.tolist()


def test_one_client_gives_its_own_model_bit_for_bit() -> None:
    tensor = np.random.default_rng(3).normal(size=50).astype(np.float32)
    parameters, _ = FedAvg().aggregate_fit(1, replies(([tensor], 17)), [])
    assert parameters == ndarrays_to_parameters([tensor])


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), inplace=st.booleans())
def test_every_order_of_results_gives_the_same_bytes(seed: int, inplace: bool) -> None:
    rng = np.random.default_rng(seed)
    results = [
        (
            IdleProxy(f"client-{index}"),
            fit_res(
                model((10.0 ** rng.integers(-6, 6, 8) * rng.normal(size=8)).astype(np.float32)),
                int(rng.integers(1, 1000)),
                {"accuracy": float(rng.uniform())},
            ),
        )
        for index in range(4)
    ]
    outcomes = [
        FedAvg(inplace=inplace).aggregate_fit(1, list(order), [])
        for order in itertools.permutations(results)
    ]
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_results_are_not_changed() -> None:
    results = replies(([[1.0, 2.0]], 1), ([[3.0, 4.0]], 1))
    before = [list(res.parameters.tensors) for _, res in results]
    FedAvg().aggregate_fit(1, results, [])
    assert [res.parameters.tensors for _, res in results] == before


def test_without_results_the_model_stays() -> None:
    assert FedAvg().aggregate_fit(1, [], [TimeoutError("nobody came")]) == (None, {})
    assert FedAvg().aggregate_evaluate(1, [], []) == (None, {})


def test_failures_count_only_where_they_are_accepted() -> None:
    fits = replies(([[1.0]], 1))
    evaluations: list[tuple[ClientProxy, EvaluateRes]] = [
        (IdleProxy("client-0"), evaluate_res(0.5, 1))
    ]
    failure = ConnectionError("client-1 did not answer")
    strict, lenient = FedAvg(accept_failures=False), FedAvg()
    assert strict.aggregate_fit(1, fits, [failure]) == (None, {})
    assert strict.aggregate_evaluate(1, evaluations, [failure]) == (None, {})
    assert strict.aggregate_fit(1, fits, [])[0] is not None
    assert lenient.aggregate_fit(1, fits, [failure])[0] is not None
    assert lenient.aggregate_evaluate(1, evaluations, [failure]) == (0.5, {})


def test_weightless_results_are_a_typed_error() -> None:
    with pytest.raises(ZeroWeight):
        FedAvg().aggregate_fit(1, replies(([[1.0]], 0), ([[2.0]], 0)), [])
    with pytest.raises(ZeroWeight):
        FedAvg().aggregate_evaluate(1, [(IdleProxy("client-0"), evaluate_res(0.5, 0))], [])


def test_losses_and_metrics_are_weighted_means_where_no_function_is_given() -> None:
    results: list[tuple[ClientProxy, EvaluateRes]] = [
        (IdleProxy("client-0"), evaluate_res(1.0, 1, {"accuracy": 0.5, "host": "a"})),
        (IdleProxy("client-1"), evaluate_res(2.0, 3, {"accuracy": 0.9, "host": "b"})),
    ]
    assert FedAvg().aggregate_evaluate(1, results, []) == (1.75, {"accuracy": 0.8})
    fits: FitResults = [
        (IdleProxy("client-0"), fit_res(model([1.0]), 1, {"loss": 1.0})),
        (IdleProxy("client-1"), fit_res(model([1.0]), 3, {"loss": 2.0})),
    ]
    assert FedAvg().aggregate_fit(1, fits, [])[1] == {"loss": 1.75}


def test_the_users_functions_are_given_counts_and_metrics() -> None:
    seen: list[list[tuple[int, Metrics]]] = []

    def gather(metrics: list[tuple[int, Metrics]]) -> Metrics:
        seen.append(metrics)
        return {"clients": len(metrics)}

    strategy = FedAvg(fit_metrics_aggregation_fn=gather, evaluate_metrics_aggregation_fn=gather)
    fits: FitResults = [(IdleProxy("client-0"), fit_res(model([1.0]), 2, {"loss": 1.0}))]
    evaluations: list[tuple[ClientProxy, EvaluateRes]] = [
        (IdleProxy("client-0"), evaluate_res(1.0, 3, {"accuracy": 0.5}))
    ]
    assert strategy.aggregate_fit(1, fits, [])[1] == {"clients": 1}
    assert strategy.aggregate_evaluate(1, evaluations, []) == (1.0, {"clients": 1})
    assert seen == [[(2, {"loss": 1.0})], [(3, {"accuracy": 0.5})]]


def test_an_aggregation_function_that_returns_no_dict_is_told_what_to_return() -> None:
    broken: Any = lambda metrics: 0.5  # noqa: E731
    with pytest.raises(InvalidReturnValue, match="aggregation function returned are a float"):
        FedAvg(fit_metrics_aggregation_fn=broken).aggregate_fit(1, replies(([[1.0]], 1)), [])


# --- centralized evaluation


def test_the_server_measures_with_the_users_function() -> None:
    seen: list[tuple[int, list[Any], Any]] = []

    def measure(server_round: int, ndarrays: NDArrays, config: Any) -> tuple[float, Metrics] | None:
        seen.append((server_round, [tensor.tolist() for tensor in ndarrays], config))
        return None if server_round == 0 else (0.5, {"accuracy": 0.75})

    strategy = FedAvg(evaluate_fn=measure)
    assert strategy.evaluate(0, model([1.0, 2.0])) is None
    assert strategy.evaluate(1, model([1.0, 2.0])) == (0.5, {"accuracy": 0.75})
    assert seen == [(0, [[1.0, 2.0]], {}), (1, [[1.0, 2.0]], {})]
    assert FedAvg().evaluate(1, MODEL) is None


def test_numpys_scalars_are_taken() -> None:
    measure: Any = lambda *_: (np.float32(0.5), {"accuracy": np.float32(0.75)})  # noqa: E731
    measured = FedAvg(evaluate_fn=measure).evaluate(1, MODEL)
    assert measured == (0.5, {"accuracy": 0.75})
    assert measured is not None
    assert [type(measured[0]), type(measured[1]["accuracy"])] == [float, float]


@pytest.mark.parametrize("returned", [0.5, (0.5,), (0.5, 0.75), ("0.5", {}), (None, {})])
def test_an_evaluation_function_that_returns_something_else_sees_an_example(returned: Any) -> None:
    with pytest.raises(InvalidReturnValue, match=r'return 0\.5, \{"accuracy": 0\.95\}'):
        FedAvg(evaluate_fn=lambda *_: returned).evaluate(1, MODEL)
