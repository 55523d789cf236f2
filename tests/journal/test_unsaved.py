"""Attributes that changed: found, named, and none that did not."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest

from flmq.common import ndarrays_to_parameters
from flmq.journal import AttributeWatch


class Tracker:
    """Neither picklable nor comparable."""

    __slots__ = ("lock", "seen")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen = 0


class Strategy:
    def __init__(self) -> None:
        self.momentum: list[Any] = [np.zeros((3, 4), np.float32), np.zeros((4, 3))[:, ::2]]
        self.rng = np.random.default_rng(1)
        self.chance = random.Random(2)
        self.rate = 0.1
        self.table: dict[str, Any] = {"fn": lambda: 0, "count": 0, "inner": [1, {2}]}
        self.tracker = Tracker()
        self.lock = threading.Lock()
        self.parameters = ndarrays_to_parameters([np.ones(5)])
        self.itself = self


CHANGES: dict[str, Any] = {
    "momentum": lambda s: s.momentum[0].__setitem__((1, 1), 1e-30),
    "momentum, strided": lambda s: s.momentum[1].__setitem__((1, 1), -0.0),
    "rng": lambda s: s.rng.random(),
    "chance": lambda s: s.chance.random(),
    "rate": lambda s: setattr(s, "rate", 0.2),
    "rate, int for float": lambda s: setattr(s, "rate", np.float32(0.1)),
    "table": lambda s: s.table.__setitem__("count", 1),
    "table, within": lambda s: s.table["inner"][1].add(3),
    "table, code": lambda s: s.table.__setitem__("fn", lambda: 0),
    "tracker": lambda s: setattr(s.tracker, "seen", 1),
    "lock": lambda s: setattr(s, "lock", threading.Lock()),
    "parameters": lambda s: s.parameters.tensors.append(b"x"),
    "added": lambda s: setattr(s, "added", None),
    "itself": lambda s: delattr(s, "itself"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named(change: str) -> None:
    strategy = Strategy()
    watch = AttributeWatch(strategy)
    assert watch.changed() == ()
    CHANGES[change](strategy)
    name = change.split(",")[0]
    # The strategy holds itself: what changes within it changes that attribute as well.
    assert set(watch.changed()) - {"itself"} == {name} - {"itself"} or name == "itself"
    assert name in watch.changed()
    watch.accept()
    assert watch.changed() == ()


def test_nothing_changes_by_use() -> None:
    strategy = Strategy()
    watch = AttributeWatch(strategy)
    with strategy.lock, strategy.tracker.lock:
        assert strategy.momentum[0].sum() == 0
        assert strategy.table["fn"]() == 0
    assert watch.changed() == ()


def test_attributes_can_be_passed_over() -> None:
    strategy = Strategy()
    watch = AttributeWatch(strategy, ignore=["rate", "itself"])
    strategy.rate = 1.0
    assert watch.changed() == ()


def test_an_object_that_breaks_when_it_is_looked_at_is_compared_by_identity() -> None:
    class Broken:
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise MemoryError

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = None  # type: ignore[assignment]

    class Holder:
        broken = None

    holder = Holder()
    holder.broken = Broken()  # type: ignore[assignment]
    watch = AttributeWatch(holder)
    assert watch.changed() == ()
    holder.broken = Broken()  # type: ignore[assignment]
    assert watch.changed() == ("broken",)


def test_slots_are_attributes() -> None:
    tracker = Tracker()
    watch = AttributeWatch(tracker)
    tracker.seen = 2
    assert watch.changed() == ("seen",)
