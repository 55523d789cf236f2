"""Strategies in two steps, as docs/strategies.md shows them: what they get, and that it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import (
    NDArrays,
    Parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.errors import InvalidReturnValue
from flmq.journal import Journal
from flmq.journal.records import KeepPolicy
from flmq.server.asks.queue_client_proxy import QueueClientProxy
from flmq.server.lifecycle.replay import replay
from flmq.server.local_runner import LocalRunner
from flmq.server.resumption import checkpointer
from flmq.server.strategy import Bulyan, FedAdam, FedAvg, FedAvgM, FedMedian, FedYogi, Krum, QFedAvg
from flmq.server.strategy.streaming import StreamedResults
from tests.dataplane.looks import mean_of, trained
from tests.docs.pages import ROOT, program
from tests.dying import Died, dies_at
from tests.end_to_end.federation import Federation, initial
from tests.server.proxies import fit_res, model

PAGE = ROOT / "docs" / "strategies.md"
CLIENTS = ("a", "b", "c", "d")
NUMBERS = 5000
"""Of a model whose moments are files of their own."""


def named(page_program: str, name: str) -> type[FedAvg]:
    """A class of a program on the page."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(program(PAGE, page_program), names)
    kind: type[FedAvg] = names[name]
    return kind


FedLion = named("fedlion.py", "FedLion")
MeanAroundMedian = named("robust.py", "MeanAroundMedian")
GeometricMedian = named("robust.py", "GeometricMedian")


def fair(**options: Any) -> FedAvg:
    """QFedAvg, whose server measures the model by its first number."""
    return QFedAvg(evaluate_fn=lambda _, arrays, __: (abs(float(arrays[0][0])), {}), **options)


def options(size: int = NUMBERS) -> dict[str, Any]:
    return {
        "fraction_evaluate": 0.0,
        "min_fit_clients": len(CLIENTS),
        "min_available_clients": len(CLIENTS),
        "initial_parameters": initial(size),
    }


def results(*values: NDArrays) -> list[Any]:
    nobody = LocalRunner([], None)
    return [
        (QueueClientProxy(f"c{number}", nobody), fit_res(model(*arrays), number + 1))
        for number, arrays in enumerate(values)
    ]


def test_the_pages_lion_is_the_formula_of_its_paper() -> None:
    """Algorithm 2 by hand, for one number, three rounds: eta 0.1, beta 0.9 and 0.99."""
    options: dict[str, Any] = {"initial_parameters": model([1.0]), "eta": 0.1}
    strategy = FedLion(**options)
    x, m = 1.0, 0.0
    for server_round, (mean, sign) in enumerate(((2.0, 1), (1.1, 1), (1.0, -1)), 1):
        delta = mean - x
        x, m = x + 0.1 * sign, 0.99 * m + 0.01 * delta
        parameters, _ = strategy.aggregate_fit(server_round, results([np.array([mean])]), [])
        assert parameters is not None
        assert parameters_to_ndarrays(parameters)[0].tolist() == pytest.approx([x], rel=1e-12)


def test_the_pages_robust_rules_are_what_they_are_called() -> None:
    """Of 1, 2, 3, 4 and 1000 all but the one farthest from 3 have the mean 2.5; and the sum of
    distances is least at 3, to which Weiszfeld's iteration comes near."""
    sent = [[np.array([value, 0.0])] for value in (1.0, 2.0, 3.0, 4.0, 1000.0)]
    for kind, expected, near in ((MeanAroundMedian, 2.5, 0.0), (GeometricMedian, 3.0, 0.01)):
        parameters, _ = kind().aggregate_fit(1, results(*sent), [])
        assert parameters is not None
        made = parameters_to_ndarrays(parameters)[0].tolist()
        assert made == pytest.approx([expected, 0.0], abs=near)


def test_what_an_update_returns_is_checked_at_once() -> None:
    class Wrong(FedAvg):
        def update(self, server_round: int, parameters: Any, combined: Any) -> Any:
            return combined.ndarrays()

    with pytest.raises(InvalidReturnValue, match=r"Wrong.update returned a list as parameters"):
        Wrong().aggregate_fit(1, results([np.ones(2)]), [])


@pytest.mark.parametrize(
    "kind", [FedLion, FedAdam, MeanAroundMedian, GeometricMedian, FedMedian, Krum]
)
def test_replies_are_combined_as_they_come(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, kind: type[FedAvg]
) -> None:
    seen: list[Any] = []
    aggregate_fit = FedAvg.aggregate_fit

    def watching(self: Any, server_round: int, results: Any, failures: Any) -> Any:
        seen.append((type(results), [res.parameters.tensors for _, res in results]))
        return aggregate_fit(self, server_round, results, failures)

    monkeypatch.setattr(FedAvg, "aggregate_fit", watching)
    federation.serve(*CLIENTS)
    server = federation.run(kind(**options()), rounds=2, timeout=None)
    got = server.model()
    assert seen == [(StreamedResults, [[], [], [], []])] * 2
    assert got == by_hand(kind, rounds=2)


def by_hand(kind: type[FedAvg], rounds: int) -> bytes:
    """What the rounds make of the model, without a server."""
    strategy, parameters = kind(**options()), initial(NUMBERS)
    for server_round in range(1, rounds + 1):
        strategy.global_parameters = parameters
        pairs = [(name, trained(name, parameters)) for name in CLIENTS]
        nobody = LocalRunner([], None)
        made, _ = strategy.aggregate_fit(
            server_round, [(QueueClientProxy(name, nobody), res) for name, res in pairs], []
        )
        assert made is not None
        parameters = made
    return b"".join(parameters.tensors)


def test_a_subclass_in_flowers_way_gets_whole_replies_and_chooses_among_them(
    memory_federation: Federation,
) -> None:
    class Choosy(FedLion):  # type: ignore[misc, valid-type]
        seen = 0

        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            self.seen = len([res for _, res in results if len(res.parameters.tensors) == 2])
            chosen = [pair for pair in results if pair[0].cid != "c"]
            return super().aggregate_fit(server_round, chosen, failures)

    memory_federation.serve(*CLIENTS)
    plain = {**options(), "eta": 0.0}
    strategy = Choosy(**plain)
    server = memory_federation.run(strategy, rounds=1, timeout=None)
    assert server.model() == b"".join(initial(NUMBERS).tensors), "eta 0 leaves the model"
    assert strategy.seen == 4

    class Mean(FedAvg):
        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            chosen = [pair for pair in results if pair[0].cid != "c"]
            return super().aggregate_fit(server_round, chosen, failures)

    server = memory_federation.run(Mean(**options()), rounds=1, timeout=None, job="mean")
    assert server.model() == mean_of("abd", initial(NUMBERS))


@pytest.mark.parametrize("point", ["server.round_aggregated", "server.round_closed"])
@pytest.mark.parametrize(
    "kind", [FedLion, FedAdam, FedAvgM, fair, GeometricMedian, FedMedian, Bulyan]
)
def test_a_run_that_was_cut_short_has_the_bits_of_one_that_was_not(
    memory_federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    kind: type[FedAvg],
) -> None:
    memory_federation.serve(*CLIENTS)
    with monkeypatch.context() as patched:
        # That of round 0, of round 1, of round 2.
        patched.setattr(checkpointer, "crash_point", dies_at(point, 3))
        first = memory_federation.run(kind(**options()), rounds=4, runs_dir=tmp_path)
        with pytest.raises(Died):
            first.history()
    again = memory_federation.run(
        kind(**options()), rounds=4, runs_dir=tmp_path, keep=KeepPolicy(replies="all")
    )
    assert again.model() == by_hand(kind, rounds=4)


@pytest.mark.parametrize("kind", [FedLion, FedYogi, fair, GeometricMedian, Krum])
def test_replaying_gives_the_recorded_models(
    memory_federation: Federation, tmp_path: Path, kind: type[FedAvg]
) -> None:
    memory_federation.serve(*CLIENTS)
    keep = KeepPolicy(replies="all")
    memory_federation.run(
        kind(**options()), rounds=3, timeout=None, runs_dir=tmp_path, keep=keep
    ).history()
    journal = Journal.open(tmp_path / "job", create=False)
    replayed = list(replay(journal, kind(**options())))
    journal.close()
    assert [each.server_round for each in replayed] == [1, 2, 3]
    assert all(each.same for each in replayed)


def test_called_by_hand_it_goes_on_from_round_to_round() -> None:
    given: list[Parameters] = []

    class Looks(FedAvg):
        def update(self, server_round: int, parameters: Parameters, combined: Any) -> Parameters:
            given.append(parameters)
            return super().update(server_round, parameters, combined)

    nothing = Parameters([], "numpy.ndarray")
    zeros, ones = ndarrays_to_parameters([np.zeros(2)]), ndarrays_to_parameters([np.ones(2)])
    for first, strategy in (
        (nothing, Looks()),
        (zeros, Looks(initial_parameters=zeros)),
    ):
        given.clear()
        for _ in range(2):
            strategy.aggregate_fit(1, results([np.ones(2)]), [])
        assert given == [first, ones]
