"""The sum of what each local gradient weighs in an update: against the optimizers themselves."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.client.learning import accumulated_steps
from flmq.common.errors import UsageError

ETA = 0.01


def test_plain_sgd_counts_its_steps() -> None:
    assert accumulated_steps(1) == 1.0
    assert accumulated_steps(7) == 7.0


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_momentum(steps: int) -> None:
    """With a gradient of 1 always, SGD with momentum moves by eta times the sum of the a_k."""
    w = m = 0.0
    for _ in range(steps):
        m = 0.9 * m + 1
        w -= ETA * m
    assert accumulated_steps(steps, momentum=0.9) == pytest.approx(-w / ETA, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_proximal_term(steps: int) -> None:
    """The same with ``mu (w - w_0)`` added to the gradient: each step shrinks what there was."""
    w, mu = 0.0, 5.0
    for _ in range(steps):
        w -= ETA * (1 + mu * w)
    assert accumulated_steps(steps, shrink=ETA * mu) == pytest.approx(-w / ETA, rel=1e-12)


@pytest.mark.parametrize(
    ("steps", "options", "said"),
    [
        (0, {}, "steps is 0"),
        (True, {}, "steps is True"),
        (2.0, {}, "steps is 2.0"),
        (1, {"momentum": 1.0}, "momentum is 1.0"),
        (1, {"shrink": -0.1}, "shrink is -0.1"),
        (1, {"momentum": float("nan")}, "momentum is nan"),
        (1, {"momentum": 0.9, "shrink": 0.1}, "both given"),
    ],
)
def test_what_is_out_of_range_is_named(steps: Any, options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        accumulated_steps(steps, **options)
