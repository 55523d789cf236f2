"""Whether a run has changed its model at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flmq.observe.events import RoundClosed, RunEvent

__all__ = ["Learned"]


class Learned:
    """Listens to a run on its way to whoever watches it."""

    def __init__(self, earlier: Iterable[RoundClosed], emit: Callable[[RunEvent], None]) -> None:
        """Begin with the rounds of ``earlier`` servers; ``emit`` gets every event."""
        self._emit = emit
        self._learned = self._trained = self._measured = False
        self._last: RoundClosed | None = None
        self.seconds_before = 0.0
        """Seconds that earlier servers took."""
        for closed in earlier:
            self._note(closed)
            self.seconds_before += closed.seconds

    def __call__(self, event: RunEvent) -> None:
        """Note what there is to note, and pass the event on."""
        if isinstance(event, RoundClosed):
            self._note(event)
        self._emit(event)

    def why_not(self) -> str:
        """Why the model is the initial one; empty where it is not, or is so with good reason.

        There is one where a round made a new model or gathered metrics of training, where there was
        no round, and where the strategy only ever had clients measure.
        """
        if self._last is None or self._learned or (self._measured and not self._trained):
            return ""
        return self._last.note or "aggregate_fit returned none"

    def _note(self, closed: RoundClosed) -> None:
        self._learned |= closed.changed or bool(closed.fit_metrics)
        self._trained |= closed.fit.asked > 0
        self._measured |= closed.evaluate.asked > 0
        self._last = closed
