"""What holds for every strategy: add yours to the list, which takes one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flmq.server.strategy as exported
from flmq.common import Metrics, NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.journal.state import decode_state, encode_state
from flmq.server.strategy import (
    SCAFFOLD,
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    DPFedAvgAdaptive,
    DPFedAvgFixed,
    FaultTolerantFedAvg,
    FedAdagrad,
    FedAdam,
    FedAsync,
    FedAvg,
    FedAvgM,
    FedBuff,
    FedMedian,
    FedNova,
    FedOpt,
    FedProx,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    FedXgbNnAvg,
    FedYogi,
    KeepLocal,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
    TrainOnly,
)
from tests.server.proxies import manager_of
from tests.server.strategy.oracle import (
    Reply,
    assert_flowers_constructor,
    flower,
    name_of,
    our_results,
)

CLIENTS = 7
ROUNDS = 3


def mixed(seed: int) -> NDArrays:
    """A model as people have them: several dtypes, a 0-d counter, an empty tensor."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(4, 3)).astype(np.float32),
        np.asfortranarray(rng.normal(size=(3, 2))),
        np.array(rng.integers(0, 50), np.int64),
        np.zeros((0, 5), np.float32),
        np.array(rng.normal(), np.float32),
        rng.normal(size=5).astype(np.float16),
        rng.integers(0, 2, 3).astype(np.bool_),
    ]


def plain_replies(model: NDArrays, server_round: int) -> list[Reply]:
    """Replies whose sums depend on the order in floating point."""
    replies: list[Reply] = []
    for client in range(CLIENTS):
        rng = np.random.default_rng([server_round, client])
        arrays = [
            (x + rng.normal(scale=10.0 ** (client - 4), size=x.shape)).astype(x.dtype)
            if x.dtype.kind == "f"
            else np.asarray(rng.integers(0, 2, x.shape), x.dtype)
            for x in model
        ]
        replies.append((arrays, client + 1, {"loss": rng.normal()}))
    return replies


@dataclass(frozen=True)
class Case:
    """A strategy, how to make one, and replies that suit it."""

    kind: type[Strategy]
    make: Callable[[], Strategy]
    optional: Sequence[str] = ()
    """Arguments that Flower requires, and ours does not."""
    without: Sequence[str] = ()
    """Names of tests here that do not apply; say why beside it."""
    model: Callable[[int], NDArrays] = field(default=mixed)
    replies: Callable[[NDArrays, int], list[Reply]] = plain_replies
    names: Sequence[str] = ()
    """Names of the model's tensors."""


def case(kind: type[Strategy], options: dict[str, Any] | None = None, **more: Any) -> Case:
    """Return the case of ``kind(**options)``."""
    constructor: Any = kind
    return Case(kind, lambda: constructor(**(options or {})), **more)


def counting_steps(model: NDArrays, server_round: int) -> list[Reply]:
    """Replies for FedNova: client k took k + 1 steps."""
    plain = enumerate(plain_replies(model, server_round), 1)
    return [(arrays, examples, {"tau": steps}) for steps, (arrays, examples, *_) in plain]


def with_variates(model: NDArrays, server_round: int) -> list[Reply]:
    """Replies for SCAFFOLD: behind the tensors their variates' changes, of at least float32."""
    return [
        (
            [*y, *(np.asarray(x - z, np.promote_types(z.dtype, np.float32)) for x, z in changes)],
            num_examples,
            {"control_variate": f"{server_round:064x}"},
        )
        for y, num_examples, *_ in plain_replies(model, server_round)
        for changes in [[(np.asarray(x, np.float64), z) for x, z in zip(y, model, strict=True)]]
    ]


FROM_A_CLIENT = ("initial_parameters",)
"""Flower's need a model to begin with, ours may ask a client for one."""


def private(kind: type[Strategy], **options: Any) -> Case:
    """Return the case of a private strategy around FedAdam, with noise of a known seed."""
    constructor: Any = kind
    options |= {"noise_multiplier": 1.0, "num_sampled_clients": CLIENTS, "noise_seed": 1}
    return Case(kind, lambda: constructor(FedAdam(), **options))


EVERY = [
    case(FedAvg),
    case(FedAvgM, {"server_momentum": 0.9}),
    case(FedOpt, optional=FROM_A_CLIENT),
    case(FedAdagrad, optional=FROM_A_CLIENT),
    case(FedAdam, optional=FROM_A_CLIENT),
    case(FedYogi, optional=FROM_A_CLIENT),
    case(FedMedian),
    case(FedTrimmedAvg),
    case(Krum, {"num_malicious_clients": 2}),
    case(MultiKrum, {"num_malicious_clients": 1, "num_clients_to_keep": 3}),
    # Flower's takes any keyword arguments, and its rule is another function of the same name.
    case(Bulyan, {"num_malicious_clients": 1}, without=("constructor",)),
    case(FedNova, replies=counting_steps),
    case(SCAFFOLD, {"num_clients": 10}, replies=with_variates),
    case(FedBuff, {"buffer_size": 7}),
    # Called by hand, it mixes in all models at once; its server gives it one at a time.
    case(FedAsync),
    case(FedProx, {"proximal_mu": 0.1}),
    case(FaultTolerantFedAvg),
    case(QFedAvg, {"evaluate_fn": lambda *_: (0.5, {})}),
    # Their tensors are no arrays: see trees/test_trees.py.
    case(FedXgbBagging, without=("order", "state", "dtypes")),
    case(FedXgbCyclic, without=("order", "state", "dtypes")),
    case(FedXgbNnAvg, without=("order", "state", "dtypes")),
    Case(TrainOnly, lambda: TrainOnly(FedAdam(), "[acf]"), names="abcdefg"),
    Case(KeepLocal, lambda: KeepLocal(FedAvgM(server_momentum=0.9), "b"), names="abcdefg"),
    private(DPFedAvgFixed, clip_norm=1.0),
    private(DPFedAvgAdaptive, init_clip_norm=1.0, clip_count_stddev=5.0),
    private(DifferentialPrivacyServerSideFixedClipping, clipping_norm=1.0),
    private(DifferentialPrivacyServerSideAdaptiveClipping, clipped_count_stddev=5.0),
    private(DifferentialPrivacyClientSideFixedClipping, clipping_norm=1.0),
    private(DifferentialPrivacyClientSideAdaptiveClipping, clipped_count_stddev=5.0),
]


def each(test: str) -> pytest.MarkDecorator:
    """Parametrize over the strategies for which this test applies."""
    cases = [each for each in EVERY if test not in each.without]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.kind.__name__)


def one_round(
    case: Case, strategy: Strategy, server_round: int, model: NDArrays, order: Sequence[int] = ()
) -> tuple[NDArrays, Metrics]:
    """Run a round as the server does; replies come in this order of clients."""
    strategy.global_parameters = ndarrays_to_parameters(model, case.names)
    clients = manager_of(*map(name_of, range(CLIENTS)), seed=server_round)
    strategy.configure_fit(server_round, strategy.global_parameters, clients)
    results = our_results(case.replies(model, server_round))
    results = [results[client] for client in order] if order else results
    made, metrics = strategy.aggregate_fit(server_round, results, [])
    assert made is not None
    return parameters_to_ndarrays(made), metrics


def bits(arrays: NDArrays) -> list[tuple[str, tuple[int, ...], bytes]]:
    return [(str(x.dtype), x.shape, x.tobytes()) for x in arrays]


def test_every_exported_strategy_is_in_the_list() -> None:
    named = {getattr(exported, name) for name in exported.__all__}
    kinds = {kind for kind in named if inspect.isclass(kind) and issubclass(kind, Strategy)}
    assert kinds - {Strategy} <= {each.kind for each in EVERY}


@each("constructor")
def test_its_constructor_takes_what_flowers_takes(case: Case) -> None:
    if hasattr(flower(), case.kind.__name__):
        assert_flowers_constructor(case.kind, case.optional)


@each("order")
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_order_of_replies_does_not_change_a_bit(case: Case, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(CLIENTS)))
    model = case.model(0)
    expected, metrics = one_round(case, case.make(), 1, model)
    shuffled, same_metrics = one_round(case, case.make(), 1, model, order)
    assert bits(shuffled) == bits(expected)
    assert same_metrics == metrics


@each("state")
def test_with_its_state_saved_and_loaded_it_goes_on_with_the_same_bits(case: Case) -> None:
    straight, resumed = case.make(), case.make()
    model = case.model(0)
    for server_round in range(1, ROUNDS + 1):
        fresh = case.make()
        fresh.load_state_dict(decode_state(encode_state(resumed.state_dict())))
        resumed = fresh
        expected, metrics = one_round(case, straight, server_round, model)
        got, same_metrics = one_round(case, resumed, server_round, model)
        assert bits(got) == bits(expected)
        assert same_metrics == metrics
        model = got


@each("dtypes")
def test_tensors_keep_their_shapes_and_dtypes(case: Case) -> None:
    strategy, model = case.make(), case.model(0)
    for server_round in range(1, ROUNDS + 1):
        made, _ = one_round(case, strategy, server_round, model)
        assert [(x.dtype, x.shape) for x in made] == [(x.dtype, x.shape) for x in model]
        model = made
