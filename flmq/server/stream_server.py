"""A server without rounds: it keeps clients busy, and makes a new model whenever it likes."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable

from flmq.common.errors import UsageError
from flmq.common.parameter import named_like
from flmq.common.phase import Phase
from flmq.common.typing import Parameters
from flmq.server.asks.coordinator import Coordinator
from flmq.server.asks.stream import AskStream
from flmq.server.history import History
from flmq.server.rounds.round_log import RoundLog
from flmq.server.server import Server
from flmq.wire import Ins, Res

__all__ = ["StreamServer"]


class _Stopped(Exception):
    """Leaves the loop of a run that stops early."""


class StreamServer(Server, ABC):
    """A server whose `run` asks clients through a stream of asks, in place of rounds.

    A *round* is what leads to a new model here: ``rounds_closed`` is the version of the model.
    """

    @abstractmethod
    def run(self, stream: AskStream, num_rounds: int) -> None:
        """Ask clients to train, and call `step`, until ``rounds_closed`` is ``num_rounds``.

        After a restart it is called again, with the model of the last step; the stream hands out
        what had come since.
        """

    def step(self, parameters: Parameters | None, num_rounds: int) -> None:
        """Make ``parameters`` the model, durably: the answers taken so far have done their part.

        None: the model stays, and the step counts all the same. An answer that is to count in a
        later step must not have been taken from the stream yet.
        """
        if parameters is not None:
            self.parameters, self._log.changed = named_like(parameters, self.parameters), True
        self._tell_model()
        number = self.rounds_closed + 1
        self._evaluate_centrally(number, self._history)
        self._evaluate_by_clients(number)
        self._keep(number, self._history)
        self.rounds_closed = number
        self._emit(self._log.closed(number, num_rounds))
        self._log = RoundLog.begin(self._clock)
        if number < num_rounds:
            self._stop_if_due()

    def _stop_if_due(self) -> None:
        if why := self.stop_rule(self._history):
            self.stopped_early = why
            raise _Stopped

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run until there are ``num_rounds`` new models, or the ``stop_rule`` says so.

        Each ask has ``timeout`` seconds, or those of the first round if they differ by round.

        Raises:
            UsageError: the server is not attached to a job on a broker.
        """
        runner = self._phases.runner
        if not isinstance(runner, Coordinator):
            raise UsageError(
                f"{type(self).__name__} asks through a broker: start it with start_server, "
                "`flmq server` or a simulation"
            )

        def stream() -> AskStream:
            seconds = self._phases.timeout(self.rounds_closed + 1, timeout)
            cast = self.strategy.cast is not None
            return runner.stream(Phase.FIT, check=self._check_ask, timeout=seconds, cast=cast)

        return self.fit_over(stream, num_rounds, timeout)

    def fit_over(
        self, stream: Callable[[], AskStream], num_rounds: int, timeout: float | None = None
    ) -> tuple[History, float]:
        """Do as `fit` over the stream that ``stream`` returns, for instance one in virtual time."""
        started = self._clock()
        self._timeout = timeout
        self._history = self._begin_or_resume(timeout)
        if self.rounds_closed < num_rounds:
            self._say_what_is_lost()
            self._log = RoundLog.begin(self._clock)
            with contextlib.suppress(_Stopped):
                if self.rounds_closed > 0:
                    self._stop_if_due()
                self.run(stream(), num_rounds)
        return self._history, self._clock() - started

    def _check_ask(self, server_round: int, ins: Ins, res: Res) -> str | None:
        """Return why a reply to an ask of this round does not count, or None: any thread calls."""
        return self._check_fit(ins, res)

    def _evaluate_by_clients(self, number: int) -> None:
        """Let clients evaluate the model, where a subclass does that."""

    def _keep(self, server_round: int, history: History) -> None:
        """Make the step durable; what is asked from now on has its model from the journal's file.

        So the models that clients are still at work on are on disk, once each, and not in memory.
        """
        super()._keep(server_round, history)
        kept = None if self._checkpointer is None else self._checkpointer.model()
        if kept is not None:
            self.parameters = kept
            self._tell_model()
