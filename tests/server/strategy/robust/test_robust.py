"""The robust strategies: by hand, Flower's numbers, hostile values, who has a vote, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.aggregation import weighted_mean
from flmq.common import NDArray, NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import AggregationError, InconsistentTensors, NonFiniteValues, ZeroWeight
from flmq.server.strategy import (
    Bulyan,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    LateFitRes,
    MultiKrum,
)
from flmq.server.strategy import aggregate as ours
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.robust.needs import NothingToTrim, TooFewReplies
from tests.server.proxies import OK, IdleProxy, fit_res, model
from tests.server.strategy.oracle import (
    Reply,
    assert_close,
    flower,
    our_results,
    round_of_flowers,
    round_of_ours,
    same_as_flower,
)

FAMILY: dict[str, Callable[[], FedAvg]] = {
    "median": FedMedian,
    "trimmed": FedTrimmedAvg,
    "krum": lambda: Krum(num_malicious_clients=2),
    "multikrum": lambda: MultiKrum(num_malicious_clients=2, num_clients_to_keep=4),
    "bulyan": lambda: Bulyan(num_malicious_clients=2),
}
each_strategy = pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY)


def of_numbers(strategy: FedAvg, *numbers: float, dtype: Any = float) -> list[float]:
    """The model of one number, of which clients send these."""
    replies: list[Reply] = [([np.array([number], dtype)], 1) for number in numbers]
    made, _ = round_of_ours(strategy, 1, [np.zeros(1, dtype)], replies)
    assert made is not None
    assert made[0].dtype == np.dtype(dtype)
    return list(made[0].tolist())


def normal(seed: int, count: int, dtype: Any = np.float32) -> list[Reply]:
    rng = np.random.default_rng(seed)
    return [
        (
            [rng.normal(size=shape).astype(dtype) for shape in ((30, 7), (11,), ())],
            int(rng.integers(1, 9)),
        )
        for _ in range(count)
    ]


# --- by hand


def test_a_median_by_hand() -> None:
    """Of 5, 1, 900, 2 and 3 the third is 3; of 1, 2, 3 and 900 the middle two have the mean 2.5."""
    assert of_numbers(FedMedian(), 5, 1, 900, 2, 3) == [3]
    assert of_numbers(FedMedian(), 900, 1, 3, 2) == [2.5]
    assert of_numbers(FedMedian(), 7) == [7]


def test_a_median_of_integers_is_rounded_half_to_even() -> None:
    """The middle two 2 and 3 make 2.5 and so 2; 3 and 4 make 4. And 2**62 + 2**62 overflows."""
    assert of_numbers(FedMedian(), 0, 2, 3, 9, dtype=np.int64) == [2]
    assert of_numbers(FedMedian(), 0, 3, 4, 9, dtype=np.uint8) == [4]
    large = 2**63 - 1
    assert of_numbers(FedMedian(), large, large, dtype=np.int64) == [large]
    assert of_numbers(FedMedian(), False, True, True, dtype=bool) == [True]
    assert of_numbers(FedMedian(), False, True, dtype=bool) == [False]


def test_a_trimmed_mean_by_hand() -> None:
    """beta = 0.2 of 5 leaves out one at either end: (2 + 3 + 7) / 3. 0.25 of 7, too: 25 / 5."""
    assert of_numbers(FedTrimmedAvg(), 7, 900, 2, -900, 3) == [4]
    assert of_numbers(FedTrimmedAvg(beta=0.25), 3, 99, 4, 5, 6, 7, -99) == [5]


def test_krum_by_hand() -> None:
    """n = 5, f = 1, so the n - f - 2 = 2 nearest count.

    Squared distances of 0, 1, 3, 4.5 and 100 to them: 1 + 9; 1 + 4; 2.25 + 4 = 6.25; 2.25 + 12.25;
    and far more. So 1 is chosen, and of two the mean of 1 and 3.
    """
    sent = (4.5, 100, 0, 3, 1)
    assert of_numbers(Krum(num_malicious_clients=1), *sent) == [1]
    assert of_numbers(Krum(num_malicious_clients=1, num_clients_to_keep=2), *sent) == [2]
    assert of_numbers(MultiKrum(num_malicious_clients=1), *sent) == [1]
    assert of_numbers(MultiKrum(num_malicious_clients=1, num_clients_to_keep=2), *sent) == [2]


def test_bulyan_by_hand() -> None:
    """n = 7, f = 1: theta = 5 are chosen, and the beta = 3 nearest to their median are averaged.

    Of 0, 1, 2, 4, 8, 16 and 90 Krum takes by the 4 nearest: 2 (4 + 1 + 4 + 36 = 45, against 1's 1 +
    1 + 9 + 49 = 60). Of 0, 1, 4, 8, 16, 90 by the 3 nearest: 1 (1 + 9 + 49 = 59, against 4's 9 + 16
    + 16 = 41): so 4. Of 0, 1, 8, 16, 90 by 2: 0 (1 + 64), 1 (1 + 49), 8 (49 + 64): 1. Of 0, 8, 16,
    90 by one: 0, 8 (64), 16 (64) are equal, and 0 came first by client id; then of 8, 16, 90: 8.
    The median of 0, 1, 2, 4, 8 is 2, its nearest 1, 2 and either 0 or 4: the smaller.
    """
    assert of_numbers(Bulyan(num_malicious_clients=1), 0, 1, 2, 4, 8, 16, 90) == [1]


def test_the_defaults_of_bulyan_and_multikrum_of_all_are_the_plain_mean() -> None:
    replies = normal(5, 7)
    mean = weighted_mean((reply[0], 1) for reply in replies)
    zero = [np.zeros_like(x) for x in replies[0][0]]
    for strategy in (Bulyan(), MultiKrum(num_clients_to_keep=7)):
        made, _ = round_of_ours(strategy, 1, zero, replies)
        assert made is not None
        assert [x.tobytes() for x in made] == [x.tobytes() for x in mean]


# --- Flower's numbers


@pytest.mark.parametrize("count", [1, 2, 5, 8, 33, 40])
def test_medians_are_flowers(count: int) -> None:
    same_as_flower(FedMedian, normal(9, 1)[0][0], [normal(1, count), normal(2, count)])


@pytest.mark.parametrize(("count", "beta"), [(5, 0.2), (10, 0.2), (11, 0.45), (40, 0.1)])
def test_trimmed_means_are_flowers(count: int, beta: float) -> None:
    same_as_flower(FedTrimmedAvg, normal(9, 1)[0][0], [normal(1, count)] * 2, beta=beta)


@pytest.mark.parametrize(("count", "f"), [(3, 0), (7, 2), (11, 4), (40, 10)])
def test_krums_choice_is_flowers(count: int, f: int) -> None:
    same_as_flower(Krum, normal(9, 1)[0][0], [normal(1, count)] * 2, num_malicious_clients=f)


@pytest.mark.parametrize(("count", "f", "keep"), [(7, 2, 3), (11, 4, 7), (40, 10, 5)])
def test_multikrum_is_flowers_krum_where_all_have_as_many_examples(
    count: int, f: int, keep: int
) -> None:
    replies: list[Reply] = [(arrays, 8) for arrays, *_ in normal(1, count)]
    options: dict[str, Any] = {"num_malicious_clients": f, "num_clients_to_keep": keep}
    made = same_as_flower(Krum, replies[0][0], [replies], **options)
    again, _ = round_of_ours(MultiKrum(**options), 1, replies[0][0], replies)
    assert again is not None
    assert [x.tobytes() for x in again] == [x.tobytes() for x in made]


def test_multikrum_takes_no_clients_word_for_its_weight() -> None:
    """Flower's mean is all but that of the client that claims a billion examples."""
    replies: list[Reply] = [([np.array([value])], 1) for value in (0.0, 1.0, 2.0, 3.0)]
    replies.append(([np.array([1.5])], 10**9))
    strategy = MultiKrum(num_malicious_clients=1, num_clients_to_keep=3)
    made, _ = round_of_ours(strategy, 1, [np.zeros(1)], replies)
    assert made is not None
    assert made[0].tolist() == [1.5]
    liar: list[Reply] = [*replies[:4], ([np.array([1.4])], 10**9)]
    made, _ = round_of_ours(strategy, 1, [np.zeros(1)], liar)
    assert made is not None
    assert made[0].tolist() == pytest.approx([4.4 / 3])


@pytest.mark.parametrize(("count", "f"), [(3, 0), (7, 1), (12, 2), (23, 5), (50, 9)])
def test_bulyan_is_flowers_when_told_what_it_forgot(count: int, f: int) -> None:
    replies, zero = normal(1, count), normal(9, 1)[0][0]
    theirs = flower().Bulyan(num_malicious_clients=f, to_keep=0)
    expected, _ = round_of_flowers(theirs, 1, zero, replies)
    made, _ = round_of_ours(Bulyan(num_malicious_clients=f, to_keep=0), 1, zero, replies)
    assert made is not None
    assert expected is not None
    assert_close(made, expected)
    with pytest.raises(TypeError, match="to_keep"):
        round_of_flowers(flower().Bulyan(num_malicious_clients=f), 1, zero, replies)


def test_functions_are_flowers_and_leave_what_they_get_alone() -> None:
    theirs = flower("flwr.server.strategy.aggregate")
    results: Any = [(arrays, 5) for arrays, *_ in normal(3, 11)]
    before = [x.copy() for arrays, _ in results for x in arrays]
    for got, expected in (
        (ours.aggregate_median(results), theirs.aggregate_median(results)),
        (ours.aggregate_trimmed_avg(results, 0.2), theirs.aggregate_trimmed_avg(results, 0.2)),
        (ours.aggregate_krum(results, 3, 0), theirs.aggregate_krum(results, 3, 0)),
        (ours.aggregate_krum(results, 3, 5), theirs.aggregate_krum(results, 3, 5)),
    ):
        assert_close(got, expected)
    # Of the last that it chooses two are always equally near to each other: Flower takes the one
    # that stands first, we the one whose digest is smaller. Without liars all are chosen.
    got = ours.aggregate_bulyan(results, 0, ours.aggregate_krum, to_keep=0)
    assert_close(got, theirs.aggregate_bulyan(list(results), 0, theirs.aggregate_krum, to_keep=0))
    assert len(results) == 11
    for one, other in zip(before, (x for arrays, _ in results for x in arrays), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(7)), few=st.booleans())
def test_functions_give_the_same_bits_for_every_order(order: list[int], few: bool) -> None:
    rng = np.random.default_rng(1)
    # Of few values many distances are equal, and zeros have both signs.
    draw = (lambda: rng.choice([-0.0, 0.0, 1.0], 6)) if few else (lambda: rng.normal(size=6))
    results = [([draw().astype(np.float32)], 1) for _ in range(7)]
    for function in (
        ours.aggregate_median,
        lambda results: ours.aggregate_trimmed_avg(results, 0.3),
        lambda results: ours.aggregate_krum(results, 1, 0),
        lambda results: ours.aggregate_krum(results, 1, 4),
        lambda results: ours.aggregate_bulyan(results, 1),
    ):
        expected = function(results)[0].tobytes()
        assert function([results[place] for place in order])[0].tobytes() == expected


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16"])
def test_narrow_floats_are_sorted_and_averaged_as_float32_and_rounded_once(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    rng = np.random.default_rng(4)
    narrow: Any = [([rng.normal(size=(5, 7)).astype(dtype)], 1) for _ in range(11)]
    wide: Any = [([arrays[0].astype(np.float32)], 1) for arrays, _ in narrow]
    for function in (
        ours.aggregate_median,
        lambda results: ours.aggregate_trimmed_avg(results, 0.2),
    ):
        made, expected = function(narrow)[0], function(wide)[0]
        assert made.dtype == dtype
        assert made.tobytes() == expected.astype(dtype).tobytes()
    chosen = ours.aggregate_krum(narrow, 3, 0)[0]
    assert chosen.tobytes() in {arrays[0].tobytes() for arrays, _ in narrow}
    assert ours.aggregate_bulyan(narrow, 2)[0].dtype == dtype


# --- hostile values


HOSTILE = {
    "enormous": 3e38,
    "enormous, negative": -3e38,
    "denormal": 1e-45,
}


@each_strategy
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_two_of_eleven_with_hostile_values_move_nothing_out_of_the_others_range(
    make: Callable[[], FedAvg], value: float
) -> None:
    honest = [
        np.float32(0.9) + np.float32(0.01) * np.arange(9 * 40, dtype=np.float32)[k::9]
        for k in range(9)
    ]
    replies: list[Reply] = [([x], 1) for x in honest]
    for place in (0, 5):
        replies.insert(place, ([np.full(40, value, np.float32)], 10**6))
    made, _ = round_of_ours(make(), 1, [np.zeros(40, np.float32)], replies)
    assert made is not None
    assert (made[0] >= np.min(honest, axis=0)).all()
    assert (made[0] <= np.max(honest, axis=0)).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_distances_that_overflow_are_farthest(dtype: Any) -> None:
    """The distances of 2.5 to its three nearest, 2, 2.25 and 3, are the smallest: 9/16 of 11/16."""
    most = float(np.finfo(dtype).max)
    sent = [most, 1.0, 2.0, -most, 3.0, 2.5, most]
    assert of_numbers(Krum(num_malicious_clients=2), *sent[:6], 2.25, dtype=dtype) == [2.5]
    assert of_numbers(FedMedian(), *sent, dtype=dtype) == [2.5]
    with pytest.raises(NonFiniteValues, match="distances between replies are too large"):
        of_numbers(Krum(), 1.7e308, -1.7e308, 0.0)


@each_strategy
def test_enormous_numbers_of_all_have_a_mean_that_does_not_overflow(
    make: Callable[[], FedAvg],
) -> None:
    assert of_numbers(make(), *[3e38] * 12, dtype=np.float32) == [float(np.float32(3e38))]


def test_krum_tells_models_apart_that_are_close_to_each_other_and_far_from_zero() -> None:
    """In float32, |x|^2 + |y|^2 - 2 xy is rounded to multiples of 64, and all are equally near.

    The differences are the numbers of `test_krum_by_hand`, in steps of 1/128, from 1000.
    """
    steps = [np.full(1000, 1000 + k / 128, np.float32) for k in (4.5, 100, 0, 3, 1)]
    replies: list[Reply] = [([x], 1) for x in steps]
    made, _ = round_of_ours(Krum(num_malicious_clients=1), 1, [steps[0]], replies)
    assert made is not None
    assert made[0].tobytes() == steps[4].tobytes()


def test_distances_of_large_integers_are_those_of_their_differences() -> None:
    """2**60 and 2**60 + 1 are one number in float64."""
    sent = [2**60 + k for k in (45, 1000, 0, 30, 10)]
    assert of_numbers(Krum(num_malicious_clients=1), *sent, dtype=np.int64) == [2**60 + 10]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_at_the_ends_or_fails_the_round(value: float) -> None:
    """Replies are checked before; a strategy that has switched the check off, or a direct call."""
    sent = [value, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert of_numbers(FedMedian(), *sent)[0] in (3.0, 4.0)
    assert of_numbers(Krum(num_malicious_clients=1), *sent)[0] in (3.0, 4.0)
    for strategy in (FedMedian(), FedTrimmedAvg(), Krum(num_malicious_clients=1), Bulyan()):
        with pytest.raises(NonFiniteValues):
            of_numbers(strategy, *[value] * 5, 1.0, 2.0)


# --- who has a vote


def late(value: float, server_round: int) -> LateFitRes:
    return LateFitRes(OK, model([value]), 1, {}, server_round)


def test_a_client_has_one_vote_its_newest_reply() -> None:
    """With three replies a liar would be the majority of five."""
    honest = [
        (IdleProxy(name), fit_res(model([value]), 1))
        for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))
    ]
    liar: list[Any] = [
        (IdleProxy("z"), late(900.0, 1)),
        (IdleProxy("z#2"), late(900.0, 2)),
        (IdleProxy("z"), fit_res(model([800.0]), 1)),
        (IdleProxy("z"), late(900.0, 3)),
    ]
    for order in itertools.permutations([*honest, *liar][2:]):
        made, _ = FedMedian().aggregate_fit(4, [*honest[:2], *order], [])
        assert made is not None
        assert parameters_to_ndarrays(made)[0].tolist() == [2.5]
    made, _ = Krum().aggregate_fit(4, [*honest, *liar], [])
    assert made is not None
    assert parameters_to_ndarrays(made)[0].tolist() == [2.0]


def test_of_equal_scores_the_first_client_id_counts() -> None:
    results: list[Any] = [
        (IdleProxy(name), fit_res(model([value]), 1))
        for name, value in (("d", 1.0), ("b", 3.0), ("a", 4.0), ("c", 2.0))
    ]
    for order in itertools.permutations(results):
        made, _ = Krum().aggregate_fit(1, list(order), [])
        assert made is not None
        assert parameters_to_ndarrays(made)[0].tolist() == [3.0], "b's, not c's"


# --- refusals


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (FedTrimmedAvg, {"beta": 0.5}, "beta is 0.5: give a number above 0 and below 0.5"),
        (FedTrimmedAvg, {"beta": 0.0}, "beta is 0.0: give"),
        (FedTrimmedAvg, {"beta": -0.1}, "beta is -0.1: give"),
        (Krum, {"num_malicious_clients": -1}, "num_malicious_clients is -1: give a whole number"),
        (Krum, {"num_malicious_clients": 0.2}, "num_malicious_clients is 0.2: give a whole number"),
        (Krum, {"num_clients_to_keep": -1}, "num_clients_to_keep is -1: give"),
        (MultiKrum, {"num_clients_to_keep": 0}, "num_clients_to_keep is 0: give .* at least 1"),
        (
            Krum,
            {"num_malicious_clients": 2, "min_fit_clients": 6, "fraction_fit": 0.0},
            "min_fit_clients is 6, and Krum with num_malicious_clients=2 needs 7 replies: give min",
        ),
        (
            MultiKrum,
            {"num_malicious_clients": 1, "num_clients_to_keep": 5, "fraction_fit": 0.0},
            "needs 6 replies: give",
        ),
        (Bulyan, {"num_malicious_clients": -1}, "num_malicious_clients is -1: give"),
        (Bulyan, {"num_malicious_clients": 1, "fraction_fit": 0.0}, "Bulyan .* needs 7 replies"),
        (
            Bulyan,
            {"first_aggregation_rule": ours.aggregate_median},
            "first rule is .*: give aggreg",
        ),
        (Bulyan, {"to_keep": 3}, "to_keep is 3: Bulyan chooses one result after the other"),
    ],
)
def test_options_out_of_range_are_refused_when_it_is_made(
    kind: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidStrategyOption, match=message):
        kind(**options)


def test_it_warns_where_a_round_may_have_too_few_replies(caplog: Any) -> None:
    Krum(num_malicious_clients=1, min_fit_clients=5, min_available_clients=5)
    FedMedian()
    FedTrimmedAvg()
    assert caplog.records == []
    Krum(num_malicious_clients=1)
    assert "min_fit_clients is 2, and Krum with num_malicious_clients=1 needs 5 repl" in caplog.text


@pytest.mark.parametrize(
    ("strategy", "count", "error", "message"),
    [
        (FedTrimmedAvg(), 4, NothingToTrim, "beta = 0.2 of 4 replies is less than one"),
        (Krum(num_malicious_clients=1), 4, TooFewReplies, "4 clients replied, and Krum .* needs 5"),
        (Krum(), 2, TooFewReplies, "needs 3 or more"),
        (MultiKrum(num_clients_to_keep=4), 3, TooFewReplies, "keeping 4 .* needs 4 or more"),
        (Bulyan(num_malicious_clients=1), 6, TooFewReplies, "Bulyan .* = 1 needs 7 or more"),
    ],
)
def test_too_few_replies_fail_the_round(
    strategy: FedAvg, count: int, error: type[AggregationError], message: str
) -> None:
    with pytest.raises(error, match=message):
        of_numbers(strategy, *range(count))


def test_functions_refuse_what_strategies_do() -> None:
    results: Any = [([np.array([1.0])], 1)] * 4
    with pytest.raises(ValueError, match=r"proportiontocut is 0\.5: give"):
        ours.aggregate_trimmed_avg(results, 0.5)
    with pytest.raises(NothingToTrim):
        ours.aggregate_trimmed_avg(results, 0.2)
    with pytest.raises(ValueError, match="num_malicious is -1"):
        ours.aggregate_krum(results, -1, 0)
    with pytest.raises(TooFewReplies):
        ours.aggregate_krum(results, 1, 0)
    with pytest.raises(InvalidStrategyOption, match="no argument beta"):
        ours.aggregate_bulyan(results, 0, beta=1)
    for function in (ours.aggregate_median, lambda none: ours.aggregate_krum(none, 0, 0)):
        with pytest.raises(ZeroWeight):
            function([])
    odd: Any = [([np.array([1.0])], 1), ([np.array([1.0, 2.0])], 1)]
    with pytest.raises(InconsistentTensors, match=r"tensors float64\[\d\], another float64"):
        ours.aggregate_median(odd)
    with pytest.raises(InconsistentTensors, match="complex128 has no mean"):
        ours.aggregate_krum([([np.array([1j])], 1)] * 3, 0, 0)


def test_a_model_of_many_blocks_is_what_one_block_would_be(monkeypatch: Any) -> None:
    """Blocks, strips and stretches of distances are cut at other places."""
    whole: NDArrays = [np.random.default_rng(k).normal(size=70_000) for k in range(8)]
    results = [([x.reshape(700, 100).astype(np.float32)], 1) for x in whole]
    functions: list[Callable[[Any], NDArrays]] = [
        ours.aggregate_median,
        lambda results: ours.aggregate_trimmed_avg(results, 0.2),
        lambda results: ours.aggregate_krum(results, 1, 3),
        lambda results: ours.aggregate_bulyan(results, 1),
    ]
    expected: list[NDArray] = [function(results)[0] for function in functions]
    monkeypatch.setattr("flmq.server.strategy.robust.sorting._STRIP_BYTES", 8 << 10)
    monkeypatch.setattr("flmq.server.strategy.robust.distances._COLUMNS", 1000)
    for function, before in zip(functions, expected, strict=True):
        assert function(results)[0].tobytes() == before.tobytes()


def test_names_of_tensors_stay() -> None:
    named = ndarrays_to_parameters([np.ones(2)])
    named.names = ("layer.weight",)
    strategy = FedMedian()
    strategy.global_parameters = named
    made, _ = strategy.aggregate_fit(1, our_results([([np.ones(2)], 1)] * 3), [])
    assert made is not None
    assert made.names == ("layer.weight",)
