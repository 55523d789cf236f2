"""Early stopping as a function of the history: patience, least gains, targets, and functions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import InvalidReturnValue
from flmq.server.history import History
from flmq.server.rhythm.early_stopping import (
    EarlyStopping,
    InvalidEarlyStopping,
    NothingToMonitor,
    stop_rule,
)

Rule = EarlyStopping


def losses(*values: float, first: int = 1) -> History:
    return History(losses_distributed=list(enumerate(values, first)))


def stopped_after(rule: EarlyStopping, *values: float) -> int | None:
    """The round after which a run with these losses ends; None: it goes on."""
    for count in range(1, len(values) + 1):
        if rule(losses(*values[:count])):
            return count
    return None


@pytest.mark.parametrize(
    ("options", "values", "after"),
    [
        ({"patience": 2}, [5, 4, 3, 2, 1], None),
        ({"patience": 2}, [5, 4, 4, 4, 1], 4),  # an equal loss is no improvement
        ({"patience": 2}, [5, 6, 4, 5, 3], None),
        ({"patience": 1}, [5, 5], 2),
        ({"patience": 1}, [5], None),
        ({"patience": 2, "min_delta": 0.5}, [5, 4.6, 4.2, 3.8], None),  # 0.8 is won in two
        ({"patience": 2, "min_delta": 0.5}, [5, 4.8, 4.6, 4.4], 3),
        ({"patience": 2}, [5, math.nan, math.nan], 3),
        ({"patience": 2}, [math.nan, math.nan], 2),
        ({"patience": 2}, [math.inf, 5, 4], None),
        ({"patience": 2, "mode": "max"}, [5, 4, 3], 3),
        ({"target": 3.0}, [5, 4, 3, 2], 3),
        ({"target": 3.0, "mode": "max"}, [1, 2, 2.9, 3.1], 4),
        ({"target": 1.0, "patience": 2}, [5, 6, 7, 1], 3),
    ],
)
def test_when_a_run_stops(options: dict[str, Any], values: list[float], after: int | None) -> None:
    assert stopped_after(Rule(**options), *values) == after


def test_the_reason_is_in_words() -> None:
    assert Rule(patience=2)(losses(0.5, 0.25, 0.75, 0.26)) == (
        "loss has not improved for 2 rounds: the best was 0.25, after round 2"
    )
    assert Rule(patience=1, min_delta=0.1)(losses(0.5, 0.45)) == (
        "loss has not improved by more than 0.1 for 1 round: the best was 0.5, after round 1"
    )
    assert Rule(target=0.3)(losses(0.5, 0.25)) == "loss is 0.25 after round 2, and was to reach 0.3"


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(1, 5))
def test_it_is_a_function_of_the_history_alone(values: list[float], patience: int) -> None:
    """Worked out the other way: the last ``patience`` rounds have no value below all before."""
    rule = Rule(patience=patience)
    history = losses(*values)
    said = rule(history)
    best_at = values.index(min(values))
    assert bool(said) == (len(values) - 1 - best_at >= patience)
    assert rule(History.from_dict(history.to_dict())) == said


def test_the_servers_measure_leads_and_a_source_may_be_named() -> None:
    history = History(
        losses_centralized=[(0, 5.0), (1, 4.0), (2, 3.0)],
        losses_distributed=[(1, 1.0), (2, 1.0)],
        metrics_distributed={"accuracy": [(1, 0.9), (2, 0.8)]},
        metrics_distributed_fit={"epsilon": [(1, 1.0), (2, 9.0)]},
    )
    assert Rule(patience=1)(history) is None
    assert Rule(patience=1, source="distributed")(history)
    assert Rule(patience=1, monitor="accuracy")(history)
    assert Rule(patience=1, monitor="accuracy", mode="min")(history) is None
    assert Rule(target=8.0, monitor="epsilon")(history)
    assert Rule(target=8.0, monitor="epsilon", source="fit")(history)


def test_the_initial_model_counts_as_the_first() -> None:
    history = History(losses_centralized=[(0, 1.0), (1, 2.0), (2, 2.0)])
    assert Rule(patience=2)(history) == (
        "loss has not improved for 2 rounds: the best was 1, after round 0"
    )


def test_rounds_that_do_not_measure_do_not_count() -> None:
    assert Rule(patience=2)(History()) is None
    assert Rule(patience=2)(History(losses_distributed=[(5, 1.0), (10, 1.0)])) is None
    trained = History(metrics_distributed_fit={"accuracy": [(1, 0.5)]})
    assert Rule(patience=2)(trained) is None


def test_a_measure_that_is_not_taken_is_named_with_those_that_are() -> None:
    history = losses(1.0)
    history.metrics_distributed["accuracy"] = [(1, 0.5)]
    with pytest.raises(NothingToMonitor, match="'acuracy', and this run measures accuracy, loss"):
        Rule(patience=3, monitor="acuracy")(history)


def test_what_is_no_number_is_no_improvement() -> None:
    history = History(metrics_distributed={"verdict": [(1, "good"), (2, True), (3, b"x")]})
    assert Rule(patience=3, monitor="verdict")(history) == "verdict was no number for 3 rounds"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "neither patience nor target is given"),
        ({"patience": 0}, "patience is 0: give 1 or more rounds"),
        ({"patience": 1.5}, "patience is 1.5"),
        ({"patience": True}, "patience is True"),
        ({"patience": 1, "min_delta": -1}, "min_delta is -1: give a number from 0 up"),
        ({"patience": 1, "min_delta": math.nan}, "min_delta is nan"),
        ({"target": math.nan}, "target is nan: give a number"),
        ({"target": "0.9"}, "target is '0.9'"),
        ({"target": 1, "mode": "least"}, "mode is 'least': give"),
        ({"target": 1, "source": "server"}, "source is 'server': give one of"),
        ({"target": 1, "source": "fit"}, "training has no loss of its own"),
        ({"target": 1, "monitor": ""}, "monitor is ''"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidEarlyStopping, match=said):
        Rule(**options)


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (None, ""),
        (False, ""),
        ("", ""),
        (True, "enough said so"),
        ("the budget is spent", "the budget is spent"),
    ],
)
def test_a_function_may_say_so(returned: Any, why: str) -> None:
    def enough(history: History) -> Any:
        return returned

    assert stop_rule(enough)(losses(1.0)) == why


def test_a_function_that_returns_something_else_is_named() -> None:
    rule: Any = lambda history: 3  # noqa: E731
    with pytest.raises(InvalidReturnValue, match="returned a int: return a reason"):
        stop_rule(rule)(losses(1.0))
