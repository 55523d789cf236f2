"""The demo's app without a broker: the same bits each time, and NUMERICS' honest accuracies."""

from __future__ import annotations

from statistics import mean

import numpy as np
import pytest

from flmq.cli.demo.digits import (
    DigitsClient,
    DigitsSettings,
    InvalidSettings,
    client,
    initial_model,
    server,
)
from flmq.cli.demo.digits import strategy as make_strategy
from flmq.client.context import ClientContext
from flmq.common import NDArrays, Scalar, parameters_to_ndarrays
from flmq.datasets.errors import CannotPartition
from flmq.server.context import ServerContext
from flmq.server.strategy import FedAvg


def accuracy_after(rounds: int, settings: DigitsSettings) -> float:
    """Federated averaging in a few lines, on the very clients and server of the demo."""
    clients = [DigitsClient(settings, index) for index in range(settings.num_partitions)]
    strategy = make_strategy(settings, settings.num_partitions, 0.0)
    assert strategy.initial_parameters is not None
    model = parameters_to_ndarrays(strategy.initial_parameters)
    for server_round in range(1, rounds + 1):
        replies = [each.fit(model, {"server_round": server_round}) for each in clients]
        counts = [count for _, count, _ in replies]
        model = [
            np.average(tensors, axis=0, weights=counts).astype(np.float32)
            for tensors in zip(*(tensors for tensors, _, _ in replies), strict=True)
        ]
    assert strategy.evaluate_fn is not None
    measured = strategy.evaluate_fn(rounds, model, {})
    assert measured is not None
    return float(measured[1]["accuracy"])


def context(properties: dict[str, Scalar]) -> ClientContext:
    return ClientContext("digits", "client-0", "main", properties)


def same_bits(one: NDArrays, other: NDArrays) -> bool:
    return [each.tobytes() for each in one] == [each.tobytes() for each in other]


@pytest.mark.parametrize(
    ("partition", "alpha", "least", "expected"),
    [("iid", 0.5, 0.91, 0.946), ("dirichlet", 0.5, 0.90, 0.942)],
)
def test_ten_rounds_reach_the_measured_accuracy(
    partition: str, alpha: float, least: float, expected: float
) -> None:
    reached = [accuracy_after(10, DigitsSettings(10, partition, alpha, seed)) for seed in range(3)]
    assert min(reached) >= least
    assert mean(reached) == pytest.approx(expected, abs=0.02)
    # Above .99 would mean that test digits had leaked into training.
    assert max(reached) <= 0.99


def test_the_perceptron_learns_too() -> None:
    reached = accuracy_after(10, DigitsSettings(model="mlp"))
    assert 0.90 <= reached <= 0.99


@pytest.mark.parametrize(("model", "parameters"), [("softmax", 650), ("mlp", 2410)])
def test_models_have_the_parameters_that_are_promised(model: str, parameters: int) -> None:
    tensors = initial_model(DigitsSettings(model=model))
    assert sum(tensor.size for tensor in tensors) == parameters
    assert {tensor.dtype for tensor in tensors} == {np.dtype(np.float32)}
    assert same_bits(tensors, initial_model(DigitsSettings(model=model)))


@pytest.mark.parametrize("model", ["softmax", "mlp"])
def test_a_training_repeated_gives_the_same_bits_and_leaves_its_input(model: str) -> None:
    settings = DigitsSettings(model=model)
    start = initial_model(settings)
    before = [tensor.copy() for tensor in start]
    first, count, _ = DigitsClient(settings, 3).fit(start, {"server_round": 2})
    again, _, _ = DigitsClient(settings, 3).fit(start, {"server_round": 2})
    assert count == len(DigitsClient(settings, 3).labels)
    assert {tensor.dtype for tensor in first} == {np.dtype(np.float32)}
    assert same_bits(first, again)
    assert same_bits(start, before)
    assert not same_bits(first, DigitsClient(settings, 3).fit(start, {"server_round": 3})[0])


@pytest.mark.parametrize("model", ["softmax", "mlp"])
def test_a_step_follows_the_gradient_of_the_loss(model: str) -> None:
    """One epoch's first batch against the slope measured by finite differences in float64."""
    from flmq.cli.demo.digits import LEARNING_RATE, _sgd_step, measure

    settings = DigitsSettings(model=model)
    rng = np.random.default_rng(0)
    tensors = [tensor + rng.normal(0, 0.1, tensor.shape) for tensor in initial_model(settings)]
    some = DigitsClient(settings, 0)
    images, labels = some.images[:8].astype(np.float64), some.labels[:8]
    stepped = [tensor.copy() for tensor in tensors]
    _sgd_step(stepped, images, labels)  # type: ignore[arg-type]
    for position, tensor in enumerate(tensors):
        at = tuple(rng.integers(0, size) for size in tensor.shape)
        slopes = []
        for shift in (1e-5, -1e-5):
            moved = [each.copy() for each in tensors]
            moved[position][at] += shift
            slopes.append(measure(moved, images, labels)[0])  # type: ignore[arg-type]
        slope = (slopes[0] - slopes[1]) / 2e-5
        assert (tensor - stepped[position])[at] / LEARNING_RATE == pytest.approx(slope, abs=1e-6)


def test_a_client_is_made_from_its_properties_wherever_it_runs() -> None:
    settings = DigitsSettings(5, "shard", seed=7, model="mlp")
    made = client(context(settings.properties(4)))
    assert np.array_equal(made.images, DigitsClient(settings, 4).images)
    as_text: dict[str, Scalar] = {"partition_index": "4", "num_partitions": "5", "seed": "7"}
    from_text = client(context({**as_text, "partition": "shard"}))
    assert np.array_equal(made.images, from_text.images)


def test_settings_survive_the_way_through_properties() -> None:
    settings = DigitsSettings(5, "dirichlet", 0.1, 7, "mlp")
    assert DigitsSettings.from_properties(settings.properties(0)) == settings
    assert DigitsSettings.from_properties({}) == DigitsSettings()


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({}, "'partition_index' is missing.*--property partition_index=3"),
        ({"partition_index": "first"}, "'partition_index' is 'first'"),
        ({"partition_index": True}, "'partition_index' is True"),
        ({"partition_index": 0, "alpha": b"x"}, "'alpha' is b'x'"),
        ({"partition_index": 0, "model": "cnn"}, "no model 'cnn'.*softmax, mlp"),
    ],
)
def test_properties_that_make_no_client_are_refused(
    properties: dict[str, Scalar], text: str
) -> None:
    with pytest.raises(InvalidSettings, match=text):
        client(context(properties))


def test_a_partition_that_is_not_there_is_refused() -> None:
    with pytest.raises(CannotPartition, match="index 10 of 10"):
        client(context({"partition_index": 10}))


def test_evaluate_measures_the_clients_own_digits() -> None:
    settings = DigitsSettings()
    some = DigitsClient(settings, 0)
    loss, count, metrics = some.evaluate(initial_model(settings), {})
    assert count == len(some.labels)
    # The zero model finds all ten classes equally likely.
    assert loss == pytest.approx(np.log(10), rel=1e-5)
    assert 0 <= float(metrics["accuracy"]) < 0.5


def test_the_server_waits_for_all_clients_unless_told_otherwise() -> None:
    strategy = server(ServerContext("digits", {"num_partitions": 7}))
    assert isinstance(strategy, FedAvg)
    assert strategy.min_available_clients == strategy.min_fit_clients == 7
    assert strategy.on_fit_config_fn is not None
    assert strategy.on_fit_config_fn(3) == {"server_round": 3}
    fewer = server(ServerContext("digits", {"num_partitions": 7, "min_clients": 3}))
    assert fewer.min_available_clients == 3
