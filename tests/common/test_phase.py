"""Phases: one object for each name."""

from __future__ import annotations

import copy
import gc
import pickle
import threading

import pytest

from flmq.common.phase import MAX_PHASE_NAME, Phase


def test_there_is_one_object_of_each_name() -> None:
    assert Phase("fit") is Phase.FIT
    assert Phase.GET_PROPERTIES.value == "get_properties"
    ages = Phase("mean_of_ages")
    assert ages is Phase("mean_of_ages")
    assert ages is not Phase("mean.of-ages2")
    assert {ages: 1}[Phase("mean_of_ages")] == 1
    assert repr(ages) == "Phase('mean_of_ages')"


@pytest.mark.parametrize("phase", [Phase.FIT, Phase("mean_of_ages")])
def test_copies_and_pickles_are_the_same_object(phase: Phase) -> None:
    assert pickle.loads(pickle.dumps(phase)) is phase
    assert copy.copy(phase) is phase
    assert copy.deepcopy({"phase": phase})["phase"] is phase


def test_a_phase_cannot_be_changed_for_others() -> None:
    with pytest.raises(AttributeError):
        Phase.FIT.value = "other"
    assert Phase.FIT.value == "fit"


@pytest.mark.parametrize(
    "name",
    ["", "Fit", "fit ", "fit\n", "..", "-fit", "_fit", "é", "a/b", "x" * (MAX_PHASE_NAME + 1)],
)
def test_names_that_are_not_usable_are_named(name: str) -> None:
    with pytest.raises(ValueError, match="kind of message"):
        Phase(name)


def test_the_longest_name_is_usable() -> None:
    assert Phase("x" * MAX_PHASE_NAME).value == "x" * MAX_PHASE_NAME


def test_what_is_no_text_is_no_name() -> None:
    with pytest.raises(ValueError, match="3"):
        Phase(3)  # type: ignore[arg-type]


def test_names_that_nobody_holds_take_no_memory() -> None:
    """A peer may send any number of them."""
    numbers = [id(Phase(f"flood{number}")) for number in range(1000)]
    gc.collect()
    assert len(set(numbers)) < 1000


def test_threads_that_ask_at_once_get_the_same_object() -> None:
    for attempt in range(50):
        found: list[Phase] = []
        barrier = threading.Barrier(4)

        def ask(name: str, found: list[Phase], barrier: threading.Barrier) -> None:
            barrier.wait()
            found.append(Phase(name))

        threads = [
            threading.Thread(target=ask, args=(f"race{attempt}", found, barrier)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1
