"""Keep clients busy with a stream of asks; each answer is handed out once.

For loops without rounds (FedBuff: Nguyen et al., 2022; FedAsync: Xie et al., 2019). Each ask is a
phase of its own in the job's journal. An answer is durable once received, and *taken* once the
stream has handed it out. After a restart, the stream first hands out the answers taken since the
last checkpoint, in the same order, then the others received, and keeps waiting for the open asks.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from flmq.common.parameter import parameters_of, with_parameters
from flmq.common.phase import Phase
from flmq.common.typing import Parameters
from flmq.round import DIRECT, STREAM, PhaseKey
from flmq.server.asks.asks import Asks, Records
from flmq.server.asks.waiting import Watch
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job.request import Ask, PhaseResult, Request
from flmq.wire import INLINE_BYTES, FileParameters, Ins, Res, size_of
from flmq.wire.kinds import check_reply

__all__ = ["Answer", "AskStream", "StreamCheck", "check_in_any_round"]

_LOOK_EVERY = 1.0

StreamCheck = Callable[[int, Ins, Res], str | None]
"""Returns why a reply does not answer an ask of the round given; None: it does."""


def check_in_any_round(server_round: int, ins: Ins, res: Res) -> str | None:
    """Check a reply as its kind requires, whichever round asked."""
    return check_reply(ins, res)


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one ask."""

    client_id: str
    server_round: int
    """The round in which the client was asked."""
    ins: Ins
    """What was asked."""
    res: Res | None
    """None: the client did not contribute."""
    failure: ClientFailure | tuple[str, Res] | None = None
    """Why not: an exception, or the client id and a reply whose status is not OK."""
    key: PhaseKey | None = None
    """Identifies the ask in the journal."""
    result: PhaseResult | None = None
    """Its counts and costs, without the reply."""
    again: bool = False
    """Whether an earlier server of the job had taken it already."""


class AskStream:
    """Asks of one kind, each its own phase. For one thread; a job has one stream per kind."""

    def __init__(
        self,
        asks: Asks,
        phase: Phase,
        clock: Callable[[], float],
        records: Records | None = None,
        *,
        check: StreamCheck = check_in_any_round,
        timeout: float | None = None,
        cast: bool = False,
    ) -> None:
        """Resume the asks of this kind that an earlier server of the job left.

        ``clock`` returns monotonic seconds; ``check`` says why a reply does not answer its ask, of
        the round given; ``timeout`` is in seconds per ask; None: wait without limit. ``cast``: as
        in `Request`.
        """
        self._asks = asks
        self._phase = phase
        self._clock = clock
        self._records = records
        self._check = check
        self._timeout = timeout
        self._cast = cast
        self._looked = clock()
        self._settled: queue.SimpleQueue[PhaseInFlight] = queue.SimpleQueue()
        self._open: dict[PhaseKey, Watch] = {}
        self._next_call: dict[int, int] = {}
        self._taken_before: set[PhaseKey] = set()
        if records is not None:
            for key in records.phases.unsettled(phase):
                planned = records.phases.planned(key)
                assert planned is not None
                if records.phases.closed(key) is not None:
                    self._taken_before.add(key)
                self._begin(key, planned.asks[0])

    @property
    def busy(self) -> frozenset[str]:
        """Return the clients that were asked and whose answer was not yet handed out."""
        return frozenset(
            ask.client_id for watch in self._open.values() for ask in watch.phase.request.asks
        )

    def ask(self, client_id: str, ins: Ins, server_round: int) -> None:
        """Ask a client.

        ``server_round`` is the round of the ask. A loop that saves a checkpoint per model version
        passes the first round without a checkpoint.

        Raises:
            BrokerError: the broker refuses or cannot be reached.
            ModelTooLarge: the model does not fit in the model stream.
            Fenced: another server took charge of the job.
        """
        call = self._next_call.get(server_round) or self._first_call(server_round)
        self._begin(PhaseKey(server_round, self._phase, call), Ask(client_id, ins))

    def _first_call(self, server_round: int) -> int:
        """Return the first call number that no ask of the round has used, open or closed."""
        if self._records is None:
            return STREAM
        closed = self._records.phases.closed_calls(server_round, self._phase)
        return max((key.call + 1 for key in closed if key.is_streamed), default=STREAM)

    def _begin(self, key: PhaseKey, ask: Ask) -> None:
        assert key.call < DIRECT, "a round is renewed long before"
        number = key.server_round
        known = self._next_call.get(number) or self._first_call(number)
        self._next_call[number] = max(known, key.call + 1)
        ask = replace(ask, ins=_lasting(ask.ins))
        check = partial(self._check, number)
        request = Request(
            self._phase, number, [ask], self._timeout, check=check, state={}, cast=self._cast
        )
        self._open[key] = self._asks.open(key, request, on_done=self._settled.put)

    def take(self, timeout: float) -> Answer | None:
        """Return the next answer, in the order of arrival; None if ``timeout`` seconds bring none.

        Raises:
            Fenced: another server took charge of the job.
            FlmqError: replies can no longer be received.
        """
        until = self._clock() + timeout
        while True:
            now = self._clock()
            if now - self._looked >= _LOOK_EVERY:
                self._looked = now
                self._look()
            try:
                phase = self._settled.get(timeout=max(0.0, min(_LOOK_EVERY, until - now)))
            except queue.Empty:
                if self._clock() >= until:
                    return None
                continue
            if phase.key in self._open:  # otherwise `ask` raised
                return self._taken(self._open.pop(phase.key))

    def __iter__(self) -> Iterator[Answer]:
        """Yield answers as they arrive, until no ask is open. Blocks; raises what `take` raises."""
        while self._open:
            answer = self.take(_LOOK_EVERY)
            if answer is not None:
                yield answer

    def _look(self) -> None:
        """See to every open ask, with one entry in the journal for all."""
        open_asks = list(self._open.values())
        if self._records is not None:
            self._records.phases.tick_all({each.phase.key: each.elapsed for each in open_asks})
        for watch in open_asks:
            watch.see_to(ticks=False)

    def _taken(self, watch: Watch) -> Answer:
        """Close a settled ask, and return its answer."""
        phase = watch.phase
        (ask,) = phase.request.asks
        result = self._asks.close(watch)
        res = next(iter(result.replies.values()), None)
        failure = result.failures[0] if result.failures else None
        return Answer(
            ask.client_id,
            phase.key.server_round,
            ask.ins,
            res,
            failure,
            phase.key,
            replace(result, replies={}, failures=[]),
            phase.key in self._taken_before,
        )


def _lasting(ins: Ins) -> Ins:
    """Return ``ins``, with parameters that are small enough for the task loaded from their file.

    The file may belong to a checkpoint that is deleted before the ask is answered.
    """
    parameters = parameters_of(ins)
    if not isinstance(parameters, FileParameters) or size_of(parameters) > INLINE_BYTES:
        return ins
    tensors = list(parameters.tensors)
    return with_parameters(ins, Parameters(tensors, parameters.tensor_type, parameters.names))
