"""The proximal term's gradient, and where a client that follows it ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flmq.client.learning import proximal_gradient
from flmq.common.errors import UsageError


def test_it_is_mu_times_the_distance_in_each_tensors_dtype() -> None:
    local = [np.array([1.0, 3.0], np.float32), np.array(2.0)]
    start = [np.array([0.0, 1.0], np.float32), np.array(5.0)]
    got = proximal_gradient(local, start, 0.5)
    assert [each.tolist() for each in got] == [[0.5, 1.0], -1.5]
    assert [each.dtype for each in got] == [np.float32, np.float64]
    assert [each.tolist() for each in local] == [[1.0, 3.0], 2.0], "nothing is changed"
    assert all(not each.any() for each in proximal_gradient(local, start, 0))


def test_a_client_that_follows_it_ends_between_its_optimum_and_the_global_model() -> None:
    """``(w - 3)^2 / 2 + mu/2 (w - 1)^2`` with mu = 1 has its minimum at ``(3 + 1) / 2`` = 2."""
    w, start = np.array([1.0]), np.array([1.0])
    for _ in range(200):
        (proximal,) = proximal_gradient([w], [start], 1.0)
        w = w - 0.1 * ((w - 3) + proximal)
    assert w.tolist() == pytest.approx([2.0], rel=1e-9)


@pytest.mark.parametrize("mu", [None, True, "0.1", -0.1, float("nan"), float("inf")])
def test_what_is_no_weight_is_named(mu: Any) -> None:
    with pytest.raises(UsageError, match=r"mu is .*: give a number of 0 or more") as info:
        proximal_gradient([np.ones(1)], [np.ones(1)], mu)
    assert isinstance(info.value, ValueError)
