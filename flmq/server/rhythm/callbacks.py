"""A program's own code, called as its run goes on: a round ended, a reply came, the run ended.

What begins and ends is told on the server's thread, which waits for it; replies are told on a
thread of the callback's own, so that none of them holds up a round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from flmq.common.errors import RunError
from flmq.common.failure_text import named_error
from flmq.common.logger import logger
from flmq.common.typing import Parameters, Scalar
from flmq.observe.events import ClientOutcome, Note, Observer, RoundClosed, RunEnded, RunEvent
from flmq.observe.measures import measures_of
from flmq.round import Outcome

__all__ = ["Callback", "CallbackFailed", "Callbacks", "RoundEnd", "as_callback"]

RoundEnd = Callable[[int, Parameters, Mapping[str, Scalar]], None]
"""A function in place of a `Callback`, called as its `on_round_end`."""

_NO_REPLY = (Outcome.SILENT, Outcome.UNROUTABLE)


class CallbackFailed(RunError):
    """A callback that is fatal raised."""

    def __init__(self, name: str, method: str, error: Exception) -> None:
        """Name the callback, its method, and what it raised."""
        super().__init__(
            f"{name}.{method} raised {named_error(error)}, and is to end the run if it does "
            "(fatal): correct it, and start the server again to go on"
        )


class Callback:
    """Subclass it, override what is of interest, and give instances as ``callbacks=[...]``.

    Every method is called *at least* once for what it tells of: after a kill of the server, the one
    that resumes tells of the last closed round again, and of the replies of the open one. A job
    that was finished before tells nothing.
    """

    fatal: bool = False
    """Whether an exception ends the run, with `CallbackFailed`. Else it is named in the log and the
    record, and the run goes on."""

    def on_run_begin(self, job: str, num_rounds: int, rounds_closed: int) -> None:
        """Begin, or resume after ``rounds_closed`` rounds. On the server's thread."""

    def on_round_end(
        self, server_round: int, parameters: Parameters, metrics: Mapping[str, Scalar]
    ) -> None:
        """Take note of a round that is over and durable. On the server's thread, which waits.

        Args:
            server_round: the round, counted from 1.
            parameters: the global model after it; do not change it. Arrays made by
                `parameters_to_ndarrays` are copies of it.
            metrics: all that was measured, by the names that `flmq runs show` has: "loss" first,
                those of training with "fit_" before them.
        """

    def on_reply(self, reply: ClientOutcome) -> None:
        """Take note of a reply, with the client's own metrics and without parameters.

        On a thread of its own, perhaps while another method runs. If more than 100,000 replies
        wait for it, the oldest are left out. If it is fatal, the run ends when the round does.
        """

    def on_run_end(self, ended: RunEnded) -> None:
        """Take note of the end: ``ended`` has the final model, or why the run failed or stopped.

        On the server's thread. An exception after a failure never takes its place.
        """


class _OfFunction(Callback):
    """A function that is called at the end of each round."""

    def __init__(self, function: RoundEnd) -> None:
        self.function = function

    def on_round_end(
        self, server_round: int, parameters: Parameters, metrics: Mapping[str, Scalar]
    ) -> None:
        """Call it."""
        self.function(server_round, parameters, metrics)


def as_callback(given: Callback | RoundEnd) -> Callback:
    """Return ``given`` as a callback; a function is called at the end of each round."""
    return given if isinstance(given, Callback) else _OfFunction(given)


class Callbacks:
    """The callbacks of a run, called in their order; one that raises is named."""

    def __init__(
        self, callbacks: Sequence[Callback | RoundEnd], emit: Callable[[RunEvent], None]
    ) -> None:
        """Tell ``emit`` which of them raise."""
        self._callbacks = [as_callback(each) for each in callbacks]
        self._emit = emit
        self._lock = threading.Lock()
        self._said: set[tuple[str, str, int]] = set()
        self._fatal: CallbackFailed | None = None

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._callbacks)

    def observers(self) -> list[Observer]:
        """Return an observer for each callback that wants to be told of replies."""
        wanting = (c for c in self._callbacks if type(c).on_reply is not Callback.on_reply)
        return [self._observer(each) for each in wanting]

    def run_begins(self, job: str, num_rounds: int, rounds_closed: int) -> None:
        """Tell of the beginning; raise `CallbackFailed` for a fatal one, as all of these do."""
        told = (job, num_rounds, rounds_closed)
        for each in self._callbacks:
            self._call(each, "on_run_begin", rounds_closed, each.on_run_begin, *told)

    def round_ended(self, closed: RoundClosed, parameters: Parameters) -> None:
        """Tell of a round."""
        self._raise_fatal()
        number, metrics = closed.server_round, measures_of(closed)
        for each in self._callbacks:
            self._call(each, "on_round_end", number, each.on_round_end, number, parameters, metrics)

    def run_ended(self, ended: RunEnded) -> None:
        """Tell of the end. If the run failed, only log what is raised."""
        if ended.error is None:
            self._raise_fatal()
        for each in self._callbacks:
            fatal = each.fatal and ended.error is None
            self._call(each, "on_run_end", ended.rounds, each.on_run_end, ended, fatal=fatal)

    def _observer(self, callback: Callback) -> Observer:
        def tell(event: RunEvent) -> None:
            if isinstance(event, ClientOutcome) and event.outcome not in _NO_REPLY:
                try:
                    self._call(callback, "on_reply", event.server_round, callback.on_reply, event)
                except CallbackFailed as error:
                    with self._lock:
                        self._fatal = self._fatal or error

        tell.__qualname__ = f"{_name(callback)}.on_reply"
        return tell

    def _raise_fatal(self) -> None:
        with self._lock:
            if self._fatal is not None:
                raise self._fatal

    def _call(
        self,
        callback: Callback,
        method: str,
        server_round: int,
        call: Callable[..., None],
        *arguments: object,
        fatal: bool | None = None,
    ) -> None:
        try:
            call(*arguments)
        except Exception as error:
            name = _name(callback)
            self._say(name, method, server_round, error)
            if callback.fatal if fatal is None else fatal:
                raise CallbackFailed(name, method, error) from error

    def _say(self, name: str, method: str, server_round: int, error: Exception) -> None:
        """Name a callback that raised, once for each of its methods and rounds."""
        key = (name, method, server_round)
        with self._lock:
            if key in self._said:
                return
            self._said = {each for each in self._said if each[2] >= server_round - 1} | {key}
        text = f"callback {name}.{method} raised {named_error(error)}"
        logger.warning("round %d: %s", server_round, text, exc_info=error)
        self._emit(Note(text, server_round))


def _name(callback: Callback) -> str:
    named = callback.function if isinstance(callback, _OfFunction) else type(callback)
    return str(getattr(named, "__name__", type(named).__name__))
