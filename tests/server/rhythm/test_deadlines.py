"""Deadlines and quorums by round: from the configuration, from the strategy, and as journalled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flmq.common.errors import InvalidReturnValue
from flmq.common.phase import Phase
from flmq.observe.events import PhaseClosed, PhaseOpened
from flmq.server import RoundPolicy, ServerConfig
from flmq.server.asks import asks
from flmq.server.rhythm.deadlines import InvalidRoundPolicy, timeout_of
from flmq.server.strategy import FedAvg
from tests.dying import Died, dies_at
from tests.end_to_end.federation import Federation, initial


def fed_avg(kind: type[FedAvg] = FedAvg, clients: int = 1, **options: Any) -> FedAvg:
    return kind(
        min_fit_clients=clients,
        min_evaluate_clients=clients,
        min_available_clients=clients,
        initial_parameters=initial(),
        **{"fraction_evaluate": 0.0, **options},
    )


class ByRound(FedAvg):
    """The second round needs one of the two that it asks; its evaluation has no limit."""

    told: list[tuple[int, Phase, int, RoundPolicy]]

    def round_policy(
        self, server_round: int, phase: Phase, asked: int, configured: RoundPolicy
    ) -> RoundPolicy:
        self.told = [*getattr(self, "told", []), (server_round, phase, asked, configured)]
        if phase is Phase.EVALUATE:
            return replace(configured, timeout=None)
        return replace(configured, target_results=1) if server_round == 2 else configured

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"timeout": 0}, "timeout is 0: give seconds above 0"),
        ({"timeout": math.inf}, "timeout is inf"),
        ({"min_results": -1}, "min_results is -1: give a whole number, 0 or more"),
        ({"min_results": True}, "min_results is True"),
        ({"target_results": 0}, "target_results is 0: give a whole number, 1 or more"),
        ({"min_results": 3, "target_results": 2}, "lower min_results or raise target_results"),
    ],
)
def test_a_policy_out_of_range_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRoundPolicy, match=said):
        RoundPolicy(**fields)


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, "60", True])
def test_a_timeout_by_round_is_checked(seconds: Any) -> None:
    with pytest.raises(InvalidReturnValue, match=r"round_timeout\(4\) returned"):
        timeout_of(lambda server_round: seconds, 4)


def _timeouts(run: Any) -> list[tuple[int, str, float | None]]:
    return [
        (each.server_round, each.phase.value, each.timeout)
        for each in run.watch.events
        if isinstance(each, PhaseOpened)
    ]


def test_a_timeout_may_be_a_function_of_the_round(memory_federation: Federation) -> None:
    memory_federation.serve("a")
    by_round: Callable[[int], float | None] = {1: 600.0, 2: 60.0, 3: None}.__getitem__
    run = memory_federation.run(
        fed_avg(fraction_evaluate=1.0), config=ServerConfig(num_rounds=3, round_timeout=by_round)
    )
    run.history()
    assert _timeouts(run) == [
        (1, "fit", 600.0),
        (1, "evaluate", 600.0),
        (2, "fit", 60.0),
        (2, "evaluate", 60.0),
        (3, "fit", None),
        (3, "evaluate", None),
    ]


def test_a_strategy_has_its_own_policy_by_round(memory_federation: Federation) -> None:
    """Two are asked; the second round closes with the first of them."""
    memory_federation.serve("a", "b")
    strategy = fed_avg(ByRound, 2, fraction_evaluate=1.0)
    run = memory_federation.run(strategy, config=ServerConfig(2, 30.0, min_results=1))
    run.history()
    closed = [each for each in run.watch.events if isinstance(each, PhaseClosed)]
    fits = [each.reason for each in closed if each.phase is Phase.FIT]
    assert fits[0] == "all answered"
    assert fits[1] == "enough answered (1)"
    assert (2, "evaluate", None) in _timeouts(run)
    assert isinstance(strategy, ByRound)
    assert strategy.told[0] == (1, Phase.FIT, 2, RoundPolicy(30.0, 1))


def test_a_policy_of_another_type_is_named(memory_federation: Federation) -> None:
    class Wrong(FedAvg):
        def round_policy(self, *told: Any) -> Any:
            return 60.0

    memory_federation.serve("a")
    with pytest.raises(InvalidReturnValue, match=r"Wrong\.round_policy returned a float, not a"):
        memory_federation.run(fed_avg(Wrong)).history()


def test_a_quorum_that_is_missed_leaves_the_model(memory_federation: Federation) -> None:
    class Strict(FedAvg):
        def round_policy(
            self, server_round: int, phase: Phase, asked: int, configured: RoundPolicy
        ) -> RoundPolicy:
            return replace(configured, min_results=asked + 1)

    memory_federation.serve("a")
    run = memory_federation.run(fed_avg(Strict))
    run.history()
    assert "1 results, 2 needed: the model stays" in run.watch.rounds()[0].note


@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [
        (lambda server_round: 500.0, lambda server_round: 5.0, 500.0),  # as journalled
        (500.0, 50.0, 50.0),  # a number is the person's, who may give another to go on
    ],
)
def test_a_resumed_phase_has_the_deadline_of_its_plan(
    memory_federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: Any,
    second: Any,
    holds: float,
) -> None:
    client = memory_federation.peer("a")
    monkeypatch.setattr(asks, "crash_point", dies_at("server.tasks_published"))
    killed = memory_federation.run(fed_avg(), config=ServerConfig(1, first), runs_dir=tmp_path)
    task = client.task()
    with pytest.raises(Died):
        killed.history()
    monkeypatch.undo()
    client.reply(task)
    run = memory_federation.run(fed_avg(), config=ServerConfig(1, second), runs_dir=tmp_path)
    run.history()
    assert _timeouts(run) == [(1, "fit", holds)]


def test_a_resumed_phase_has_the_policy_of_its_plan(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strategy is not asked again: what it would say now may be something else."""

    client = memory_federation.peer("a")
    monkeypatch.setattr(asks, "crash_point", dies_at("server.tasks_published"))
    killed = memory_federation.run(fed_avg(ByRound), runs_dir=tmp_path)
    task = client.task()
    with pytest.raises(Died):
        killed.history()
    monkeypatch.undo()
    client.reply(task)
    strategy = fed_avg(ByRound)
    memory_federation.run(strategy, runs_dir=tmp_path).history()
    assert not hasattr(strategy, "told")
