"""When each task came, was begun and was done, by the worker's clock: a reply tells of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.times import WorkerTimes

__all__ = ["Courses"]

_MOST = 65_536
"""Tasks whose course is kept until they are done; those that are never begun leave last ones."""


@dataclass(slots=True)
class _Course:
    taken_ms: int
    deliveries: int
    begun_ms: int | None = None
    loaded_ms: int | None = None
    deaths: int | None = None


class Courses:
    """The course of each task that waits or is being done, by id. Thread-safe."""

    def __init__(self, most: int = _MOST) -> None:
        """Keep those of the last ``most`` tasks that came."""
        self._most = most
        self._lock = threading.Lock()
        self._courses: OrderedDict[str, _Course] = OrderedDict()

    def taken(self, task_id: str, at: float, *, again: bool) -> None:
        """Note that a task came at ``at``, in Unix seconds; ``again``: it is a redelivery."""
        with self._lock:
            known = self._courses.get(task_id)
            if known is not None:
                known.deliveries += 1
            else:
                self._add(task_id, _Course(_ms(at), 2 if again else 1))

    def begun(self, task_id: str, at: float, age_of: Callable[[str], float]) -> None:
        """Note that a task is begun at ``at``.

        ``age_of`` returns how many seconds ago it came, if that was before this process.
        """
        with self._lock:
            known = self._courses.get(task_id)
            if known is None:
                known = self._add(task_id, _Course(_ms(at - age_of(task_id)), 1))
            known.begun_ms = _ms(at)

    def loaded(self, task_id: str, at: float) -> None:
        """Note that a task's model is there at ``at``."""
        with self._lock:
            if (known := self._courses.get(task_id)) is not None:
                known.loaded_ms = _ms(at)

    def died(self, task_id: str, deaths: int) -> None:
        """Note how many processes are known to have died in a task."""
        with self._lock:
            if (known := self._courses.get(task_id)) is not None:
                known.deaths = deaths

    def ended(self, task_id: str, at: float) -> WorkerTimes:
        """Return the course of a task that is done at ``at``, and forget it."""
        with self._lock:
            known = self._courses.pop(task_id, None)
        if known is None:
            return WorkerTimes(training_ended_ms=_ms(at))
        return WorkerTimes(
            known.taken_ms,
            known.begun_ms,
            known.loaded_ms,
            _ms(at),
            deliveries=known.deliveries,
            deaths=known.deaths,
        )

    def _add(self, task_id: str, course: _Course) -> _Course:
        self._courses[task_id] = course
        if len(self._courses) > self._most:
            self._courses.popitem(last=False)
        return course


def _ms(at: float) -> int:
    return round(at * 1000)
