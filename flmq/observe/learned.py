"""Detect whether a run has changed its model at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flmq.observe.events import RoundClosed, RunEvent

__all__ = ["Learned"]


class Learned:
    """Watch a run's events, passing them on to the next observer."""

    def __init__(self, earlier: Iterable[RoundClosed], emit: Callable[[RunEvent], None]) -> None:
        """Start with the rounds of ``earlier`` servers; ``emit`` gets every event."""
        self._emit = emit
        self._learned = self._trained = self._measured = False
        self.last: RoundClosed | None = None
        """The last round that was closed."""
        self.seconds_before = 0.0
        """Seconds of earlier servers."""
        for closed in earlier:
            self._note(closed)
            self.seconds_before += closed.seconds

    def __call__(self, event: RunEvent) -> None:
        """Take note of the event, and pass it on."""
        if isinstance(event, RoundClosed):
            self._note(event)
        self._emit(event)

    def why_not(self) -> str:
        """Return why the model is still the initial one; empty if it is not, or if that is fine.

        It is fine if a round made a new model or collected metrics of training, if there was no
        round, or if the strategy only ever let clients evaluate.
        """
        if self.last is None or self._learned or (self._measured and not self._trained):
            return ""
        return self.last.note or "aggregate_fit returned none"

    def _note(self, closed: RoundClosed) -> None:
        self._learned |= closed.changed or bool(closed.fit_metrics)
        self._trained |= closed.fit.asked > 0
        self._measured |= closed.evaluate.asked > 0
        self.last = closed
