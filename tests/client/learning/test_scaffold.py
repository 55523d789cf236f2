"""A client of SCAFFOLD: which variate it starts from, what it keeps, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.client.learning import LostVariate, NoStateFolder, ScaffoldClient
from flmq.client.learning.scaffold import NotScaffold
from flmq.common import Config, Metrics, NDArrays
from flmq.common.errors import InvalidReturnValue, StoredDataError, UsageError

RATE = 0.5
"""K eta."""


class Steps(ScaffoldClient):
    """Moves by 1 against the correction; its counter counts."""

    def train(
        self, parameters: NDArrays, correction: NDArrays, config: Config
    ) -> tuple[NDArrays, float, int, Metrics]:
        self.correction = [each.copy() for each in correction]
        w, count = parameters
        w -= np.asarray(RATE * (1 + correction[0]), w.dtype)
        return [w, np.asarray(count + 1)], RATE, 10, {"loss": 0.5}


X: NDArrays = [np.zeros(3, np.float32), np.array(7)]
C: NDArrays = [np.full(3, 0.25, np.float32), np.zeros(())]


def fit(client: ScaffoldClient, base: str = "") -> tuple[NDArrays, str]:
    arrays = [each.copy() for each in (*X, *C)]
    got, num_examples, metrics = client.fit(arrays, {"control_variate": base})
    assert (num_examples, metrics["loss"]) == (10, 0.5)
    return got, str(metrics["control_variate"])


def kept(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "scaffold").iterdir()}


def test_its_first_variate_is_that_of_the_formula(tmp_path: Path) -> None:
    """The correction is c - 0 = 0.25, so y = -0.5 (1.25) = -0.625.

    ``c_i' = 0 - c + (x - y) / (K eta)`` = -0.25 + 1.25 = 1, the gradient.
    """
    client = Steps(tmp_path)
    (y, count, dc, dc_of_count), digest = fit(client)
    assert (y.tolist(), dc.tolist()) == ([-0.625] * 3, [1.0] * 3)
    assert (count.tolist(), dc_of_count.tolist()) == (8, 0.0), "counters have no variate"
    assert [each.dtype for each in (y, count, dc, dc_of_count)] == [x.dtype for x in (*X, *C)]
    assert kept(tmp_path) == {digest}


def test_the_next_one_starts_from_the_one_that_counts(tmp_path: Path) -> None:
    _, first = fit(Steps(tmp_path))
    client = Steps(tmp_path)  # another process
    (_, _, dc, _), second = fit(client, first)
    assert client.correction[0].tolist() == [0.25 - 1.0] * 3
    assert dc.tolist() == [0.0] * 3, "the gradient stays 1"
    assert second == first, "the same variate has the same digest"


def test_asked_again_it_gives_the_same_and_what_did_not_count_goes(tmp_path: Path) -> None:
    fit(Steps(tmp_path))
    C[0][:] = 0.5
    try:
        again, second = fit(Steps(tmp_path))  # the server does not count the first
        once_more, third = fit(Steps(tmp_path))
    finally:
        C[0][:] = 0.25
    assert second == third
    assert [x.tobytes() for x in again] == [x.tobytes() for x in once_more]
    assert kept(tmp_path) == {second}
    with pytest.raises(LostVariate):
        fit(Steps(tmp_path), "0" * 64)
    assert kept(tmp_path) == {second}, "one that fails keeps what there is"


def test_without_a_folder_it_says_how_to_give_one() -> None:
    with pytest.raises(NoStateFolder, match="--state-dir"):
        Steps(None)


def test_a_variate_that_is_gone_damaged_or_of_another_model_is_named(tmp_path: Path) -> None:
    _, digest = fit(Steps(tmp_path))
    (file,) = (tmp_path / "scaffold").iterdir()
    whole = file.read_bytes()
    for content, problem in (
        (whole[:-1], "is damaged"),
        (b"", "is damaged"),
        (None, "is not there"),
    ):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        with pytest.raises(LostVariate, match=problem) as info:
            fit(Steps(tmp_path), digest)
        assert isinstance(info.value, StoredDataError)
        assert digest[:12] in str(info.value)
    file.write_bytes(whole)
    other = [np.zeros(2, np.float32), np.zeros(2, np.float32)]
    with pytest.raises(LostVariate, match="other tensors"):
        Steps(tmp_path).fit(other, {"control_variate": digest})


@pytest.mark.parametrize(
    "config", [{}, {"control_variate": 3}, {"control_variate": "../../" + "0" * 58}]
)
def test_tasks_of_other_strategies_are_refused(tmp_path: Path, config: Config) -> None:
    with pytest.raises(NotScaffold, match="SCAFFOLD"):
        Steps(tmp_path).fit([np.zeros(1), np.zeros(1)], config)
    with pytest.raises(NotScaffold):
        Steps(tmp_path).fit([np.zeros(1)], {"control_variate": ""})
    assert not (tmp_path / "scaffold").exists()


@pytest.mark.parametrize(
    "returned",
    [
        None,
        (X, 10, {}),
        (X, 0.0, 10, {}),
        (X, float("nan"), 10, {}),
        (X[:1], 0.5, 10, {}),
        ([np.zeros(4), np.array(1)], 0.5, 10, {}),
        (X, 0.5, 10, None),
    ],
)
def test_what_train_must_not_return_is_named(tmp_path: Path, returned: Any) -> None:
    class Wrong(ScaffoldClient):
        def train(self, parameters: NDArrays, correction: NDArrays, config: Config) -> Any:
            return returned

    with pytest.raises(InvalidReturnValue, match=r"Wrong.train should return") as info:
        Wrong(tmp_path).fit([*X, *C], {"control_variate": ""})
    assert isinstance(info.value, UsageError)
    assert not (tmp_path / "scaffold").exists()
