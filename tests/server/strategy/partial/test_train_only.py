"""Averaging some of a model's tensors: who sees which, what counts, and what cannot be."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import NDArrays, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import InconsistentTensors
from flmq.server.strategy import (
    SCAFFOLD,
    FedAdam,
    FedAvg,
    FedBuff,
    FedMedian,
    KeepLocal,
    ReplyCheck,
    Strategy,
    TrainOnly,
)
from flmq.server.strategy.casting import cast_like
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.partial.subset import NamedSubset, NoSuchTensors, part_of
from flmq.server.strategy.reply_check import check_fit_reply, spec_of
from flmq.server.strategy.streaming import StreamedResults, says_it_streams
from flmq.wire import FileParameters, refer
from tests.server.proxies import IdleProxy, fit_res, manager_of

NAMES = ("base.weight", "lora.A", "lora.B", "bn.num_batches_tracked")
MODEL = ndarrays_to_parameters(
    [np.full((2, 2), 9.0), np.zeros(2), np.zeros(1), np.array(100)], NAMES
)


def trained(value: float, *, whole: bool = True, names: bool = False) -> Parameters:
    """A reply: adapters of ``value``; where it is whole, a base that no mean may have."""
    arrays: NDArrays = [np.full(2, float(value)), np.full(1, -float(value))]
    if whole:
        arrays = [np.full((2, 2), np.nan), *arrays, np.array(value, np.int64)]
    return ndarrays_to_parameters(arrays, (NAMES if whole else NAMES[1:3]) if names else ())


def in_file(parameters: Parameters, folder: Path) -> FileParameters:
    path = folder / f"{len(list(folder.iterdir()))}.blob"
    path.write_bytes(b"".join(parameters.tensors))
    return FileParameters(path, refer(parameters))


def one_round(strategy: Strategy, *replies: Parameters, streamed: bool = False) -> Parameters:
    """A round as the server does it, of clients with 1, 2, ... examples."""
    strategy.global_parameters = MODEL
    results: Any = [
        (IdleProxy(f"client-{number}"), fit_res(reply, number))
        for number, reply in enumerate(replies, start=1)
    ]
    if streamed:
        combine = strategy.combine(1, MODEL)
        assert combine is not None
        for client, res in results:
            combine.add(client.cid, res)
        results = StreamedResults(results, combine)
    made, _ = strategy.aggregate_fit(1, results, [])
    assert made is not None
    return made


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("files", [False, True])
def test_the_mean_is_of_the_adapters_and_the_model_stays_whole(
    tmp_path: Path, streamed: bool, files: bool
) -> None:
    """Three clients of weights 1, 2 and 3 send 6, 3 and 4: the mean is (6 + 6 + 12) / 6 = 4."""
    replies = [
        trained(6),
        trained(3, whole=False),
        trained(4, whole=False, names=True),
    ]
    if files:
        replies = [in_file(reply, tmp_path) for reply in replies]
    made = one_round(TrainOnly(FedAvg(), "lora.*"), *replies, streamed=streamed)
    assert made.names == NAMES
    base, a, b, count = parameters_to_ndarrays(made)
    assert (base.tolist(), count.tolist()) == ([[9, 9], [9, 9]], 100)
    assert (a.tolist(), b.tolist()) == ([4, 4], [-4])


def test_adam_takes_its_steps_for_the_adapters_alone() -> None:
    """Its first step is eta * delta / (|delta| + tau), Algorithm 2 of arXiv:2003.00295.

    Here m = 0.1 * 4 = 0.4 and v = 0.01 * 16 = 0.16, so that 0.5 * 0.4 / (0.4 + 0.1) = 0.4.
    """
    options = {"eta": 0.5, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.1}
    inside = FedAdam(**options)  # type: ignore[arg-type]
    alone = FedAdam(**options)  # type: ignore[arg-type]
    made = one_round(TrainOnly(inside, "lora.*"), trained(4), trained(4))
    adapters = Parameters(MODEL.tensors[1:3], MODEL.tensor_type)
    alone.global_parameters = adapters
    results: Any = [(IdleProxy(f"{n}"), fit_res(trained(4, whole=False), n)) for n in (1, 2)]
    expected, _ = alone.aggregate_fit(1, results, [])
    assert expected is not None
    assert made.tensors[1:3] == expected.tensors
    assert made.tensors[0] == MODEL.tensors[0]
    np.testing.assert_equal(inside.state_dict(), alone.state_dict())


def test_a_robust_strategy_reads_parts_of_files_in_blocks(tmp_path: Path) -> None:
    replies = [in_file(trained(value), tmp_path) for value in (1, 5, 100)]
    made = one_round(TrainOnly(FedMedian(), "lora.*"), *replies, streamed=True)
    _, a, b, _ = parameters_to_ndarrays(made)
    assert (a.tolist(), b.tolist()) == ([5, 5], [-5])


def test_what_is_kept_local_stays_the_servers() -> None:
    kept = KeepLocal(FedAvg(), "*.num_batches_tracked", "base.*")
    made = one_round(kept, trained(2), trained(5))
    base, a, _, count = parameters_to_ndarrays(made)
    assert (base[0, 0], a[0], count.item()) == (9, 4, 100)


def test_called_by_hand_it_begins_from_the_initial_parameters() -> None:
    strategy = TrainOnly(FedAvg(initial_parameters=MODEL), "lora.*")
    for value in (1, 2):
        results: Any = [(IdleProxy("a"), fit_res(trained(value), 1))]
        made, _ = strategy.aggregate_fit(value, results, [])
        assert made is not None
        assert parameters_to_ndarrays(made)[1].tolist() == [value, value]
        assert made.tensors[0] == MODEL.tensors[0]


# -- which replies count ------------------------------------------------------------------------


def reason(parameters: Parameters, sent: Parameters = MODEL) -> str | None:
    check, res = ReplyCheck.subset("lora.*"), fit_res(parameters, 3)
    said = check_fit_reply(sent, res, check)
    assert check_fit_reply(spec_of(sent), res, check) == said
    return said


def test_replies_whole_or_in_part_count_whatever_the_others_hold() -> None:
    for whole in (True, False):
        for names in (True, False):
            assert reason(trained(1, whole=whole, names=names)) is None
    turned = ndarrays_to_parameters([np.ones(1), np.ones(3), np.ones(2)], ["lora.B", "x", "lora.A"])
    assert reason(turned) is None


@pytest.mark.parametrize(
    ("arrays", "names", "words"),
    [
        ([np.ones(2)], ["lora.A"], "tensor lora.B did not come: return those that were trained"),
        ([np.ones(2), np.array([np.nan])], (), "tensor lora.B holds NaN"),
        ([np.ones(2), np.ones(1, int)], (), "tensor lora.B is int64, the model's is float64"),
        ([np.ones(2), np.ones(2)], (), "tensor lora.B has shape (2,), the model's has (1,)"),
        ([np.ones(2)] * 3, (), "3 tensors came, and the model has 4, of which 2 are trained"),
        ([], (), "0 tensors came"),
    ],
)
def test_other_replies_do_not(arrays: NDArrays, names: Any, words: str) -> None:
    said = reason(ndarrays_to_parameters(arrays, names))
    assert said is not None
    assert words in said


def test_names_that_were_assigned_later_are_checked() -> None:
    odd = ndarrays_to_parameters([np.ones(2)])
    odd.names = ("lora.A", "lora.B")
    said = reason(odd)
    assert said is not None
    assert "2 names for 1 tensors" in said


def test_a_model_without_names_has_no_subset() -> None:
    bare = Parameters(MODEL.tensors, MODEL.tensor_type)
    said = reason(trained(1), bare)
    assert said is not None
    assert "the model has no names: make it with" in said


def test_the_checks_of_before_are_what_they_were() -> None:
    assert [each.value for each in ReplyCheck] == ["like sent", "finite", "none"]
    assert str(ReplyCheck.subset("a", "b")) == "the tensors 'a', 'b'"


def test_a_reply_that_lacks_tensors_fails_the_round_by_name_if_nobody_checked_it() -> None:
    with pytest.raises(InconsistentTensors, match="the reply of client-1: 1 tensors came"):
        one_round(TrainOnly(FedAvg(), "lora.*"), ndarrays_to_parameters([np.ones(2)]))


# -- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "names", "words"),
    [
        (FedAvg(), (), "names is (): name tensors, as in TrainOnly(FedAvg(), 'head.*')"),
        (FedAvg(), ("",), "names is ('',)"),
        (FedAvg, ("a",), "give a strategy, such as FedAvg()"),
        (FedBuff(buffer_size=2), ("a",), "strategy is FedBuff, whose replies are not"),
        (SCAFFOLD(num_clients=3), ("a",), "strategy is SCAFFOLD, whose"),
        (TrainOnly(FedAvg(), "a"), ("a",), "strategy is TrainOnly"),
    ],
)
def test_what_cannot_be_is_refused_at_construction(strategy: Any, names: Any, words: str) -> None:
    with pytest.raises(InvalidStrategyOption) as caught:
        TrainOnly(strategy, *names)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (
            TrainOnly(FedAvg(), "lora.*", "head.*"),
            "no tensor of the model is called 'head.*': ",
        ),
        (KeepLocal(FedAvg(), "*"), "all tensors but '*' are none of the model's tensors"),
    ],
)
def test_names_that_match_nothing_end_the_run_before_anybody_trains(
    strategy: TrainOnly, words: str
) -> None:
    clients = manager_of("a", "b")
    for call in (
        lambda: strategy.configure_fit(1, MODEL, clients),
        lambda: setattr(strategy, "global_parameters", MODEL),
        lambda: strategy.combine(1, MODEL),
    ):
        with pytest.raises(NoSuchTensors) as caught:
            call()
        assert words in str(caught.value)
    strategy.strategy.initial_parameters = MODEL  # type: ignore[attr-defined]
    with pytest.raises(NoSuchTensors):
        strategy.initialize_parameters(clients)


def test_it_is_the_strategy_inside_to_whoever_asks() -> None:
    strategy = TrainOnly(FedAvg(min_available_clients=5, fraction_evaluate=0.0), "lora.*")
    assert (strategy.min_available_clients, says_it_streams(strategy)) == (5, True)
    assert repr(strategy) == "TrainOnly(FedAvg(accept_failures=True): the tensors 'lora.*')"
    with pytest.raises(AttributeError):
        _ = strategy.no_such_option
    assert pickle.loads(pickle.dumps(strategy)).min_available_clients == 5

    class Whole(FedAvg):
        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            self.seen = [len(res.parameters.tensors) for _, res in results]
            return super().aggregate_fit(server_round, results, failures)

    inside = Whole()
    strategy = TrainOnly(inside, "lora.*")
    assert not says_it_streams(strategy)
    one_round(strategy, trained(1), trained(2, whole=False))
    assert inside.seen == [2, 2]


def test_a_part_is_cast_by_name() -> None:
    assert TrainOnly(FedAvg(cast="like sent"), "lora.*").cast == "like sent"
    halves: NDArrays = [np.ones(1, np.float16), np.ones(2, np.float32)]
    got = ndarrays_to_parameters(halves, ["lora.B", "lora.A"])
    fitted = cast_like(spec_of(MODEL), got)
    assert isinstance(fitted, Parameters)
    assert [str(x.dtype) for x in parameters_to_ndarrays(fitted)] == ["float64"] * 2
    assert reason(fitted) is None


def test_a_part_of_a_file_is_read_from_the_file(tmp_path: Path) -> None:
    whole = in_file(trained(3, names=True), tmp_path)
    part = part_of(whole, NamedSubset(("lora.*",)).places(NAMES), NAMES)
    assert isinstance(part, FileParameters)
    assert part.names == NAMES[1:3]
    assert part == trained(3, whole=False, names=True)
    assert [bytes(part.tensor(i)) for i in range(2)] == trained(3, whole=False).tensors
    assert pickle.loads(pickle.dumps(part)) == part
