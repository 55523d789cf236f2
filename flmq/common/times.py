"""When a task was published, taken, trained, sent and counted, and by which clock.

Workers' clocks may be wrong by hours, and what a worker says may be anything: it is for drawing
alone, and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MAX_TIMES", "TaskTimes", "WorkerTimes"]

MAX_TIMES = 1_000_000
"""Deliveries or deaths beyond which a number is not believed."""

_SLACK = 1000.0
"""Milliseconds by which a worker's time may be out of place beyond the error of its offset."""


@dataclass(frozen=True, slots=True)
class WorkerTimes:
    """The course of a task as its worker tells it; times in Unix ms by the worker's own clock.

    None: not known.
    """

    taken_ms: int | None = None
    """When the task came from the client's queue."""
    begun_ms: int | None = None
    """When the worker came to it, and began to read its model."""
    training_started_ms: int | None = None
    """When the model was there, and the client was called."""
    training_ended_ms: int | None = None
    upload_started_ms: int | None = None
    deliveries: int | None = None
    """How often the task was taken from the client's queue; more than 1: it was delivered again."""
    deaths: int | None = None
    """How many processes of the client are known to have died in it."""
    note: str = ""
    """What was not believed of it, and why; empty: all was."""

    def uploaded_at(self, at: int) -> WorkerTimes:
        """Return them with ``at`` as when the upload started; `dataclasses.replace` is dear."""
        return WorkerTimes(
            self.taken_ms,
            self.begun_ms,
            self.training_started_ms,
            self.training_ended_ms,
            at,
            self.deliveries,
            self.deaths,
            self.note,
        )

    def steps(self) -> dict[str, int | None]:
        """Return the times by name, in the order in which they must be."""
        return {
            "taken": self.taken_ms,
            "begun": self.begun_ms,
            "training_started": self.training_started_ms,
            "training_ended": self.training_ended_ms,
            "upload_started": self.upload_started_ms,
        }


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """The course of a task: what the server saw, and what its worker says of it.

    The properties give the worker's times by the server's clock: None: not known, or not believed.
    """

    published_ms: int | None = None
    """When the server published it, in Unix ms by the server's clock, as the two that follow."""
    received_ms: int | None = None
    """When its reply was here whole."""
    counted_ms: int | None = None
    """When the reply was entered into the journal, and counted."""
    worker: WorkerTimes | None = None
    """None: the worker says nothing of it, as those before flmq's schema 1.6."""
    offset_ms: float | None = None
    """How far the worker's clock was ahead of the server's; None: not known."""
    offset_error_ms: float | None = None
    """By how much ``offset_ms`` may be wrong, either way."""

    @property
    def taken_ms(self) -> int | None:
        """When the worker took the task from its queue."""
        return self._at_server("taken")

    @property
    def begun_ms(self) -> int | None:
        """When the worker came to the task, and began to read its model."""
        return self._at_server("begun")

    @property
    def training_started_ms(self) -> int | None:
        """When the client was called."""
        return self._at_server("training_started")

    @property
    def training_ended_ms(self) -> int | None:
        """When the client's call was over."""
        return self._at_server("training_ended")

    @property
    def upload_started_ms(self) -> int | None:
        """When the worker began to send the reply."""
        return self._at_server("upload_started")

    @property
    def deliveries(self) -> int | None:
        """How often the task was taken from its queue."""
        return None if self.worker is None else self.worker.deliveries

    @property
    def deaths(self) -> int | None:
        """How many processes of the client are known to have died in it."""
        return None if self.worker is None else self.worker.deaths

    @property
    def clock(self) -> bool:
        """Whether the worker's times can be used."""
        return not self.clock_note

    @property
    def clock_note(self) -> str:
        """Why some of the worker's times cannot be used; empty: all can."""
        if self.worker is None:
            return ""
        return self.worker.note or self._out_of_place()

    def _out_of_place(self) -> str:
        known = [(name, at) for name, at in self.worker_steps() if at is not None]
        if not known:
            return ""
        if self.offset_ms is None:
            return "how far its clock is from the server's is not known"
        slack = _SLACK + (self.offset_error_ms or 0.0)
        for name, at in known:
            said = at - self.offset_ms
            if self.published_ms is not None and said < self.published_ms - slack:
                return f"{name} is before the task was published: its clock was set meanwhile"
            if self.received_ms is not None and said > self.received_ms + slack:
                return f"{name} is after its reply was here: its clock was set meanwhile"
        return ""

    def worker_steps(self) -> list[tuple[str, int | None]]:
        """Return the worker's times by its own clock, each with its name, in order."""
        return [] if self.worker is None else list(self.worker.steps().items())

    def course(self) -> dict[str, int | None]:
        """Return all of the worker's times by the server's clock, by the names of its steps."""
        steps = WorkerTimes().steps() if self.worker is None else self.worker.steps()
        if self.offset_ms is None or self._out_of_place():
            return dict.fromkeys(steps)
        return {name: self._between(at) for name, at in steps.items()}

    def _at_server(self, name: str) -> int | None:
        """Return a worker's time by the server's clock, between publishing and receiving."""
        return self.course()[name]

    def _between(self, at: int | None) -> int | None:
        if at is None or self.offset_ms is None:
            return None
        said = round(at - self.offset_ms)
        if self.received_ms is not None:
            said = min(said, self.received_ms)
        return said if self.published_ms is None else max(said, self.published_ms)
