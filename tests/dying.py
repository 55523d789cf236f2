"""Servers that die at a crash point, within the test's own process."""

from __future__ import annotations

from collections.abc import Callable

from flmq.common.errors import RunError

__all__ = ["Died", "dies_at"]


class Died(RunError):
    """In place of a kill: what this ends has done nothing after its crash point."""


def dies_at(point: str, *passes: int) -> Callable[[str], None]:
    """What to put in the place of a module's ``crash_point``: it dies at ``point``.

    At which of the times that it is passed, counted from 1; without numbers, at the first.
    """
    passed = 0

    def crash_point(name: str) -> None:
        nonlocal passed
        passed += name == point
        if name == point and passed in (passes or (1,)):
            raise Died("killed")

    return crash_point
