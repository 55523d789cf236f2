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

from flmq.common.parameter import parameters_of, with_parameters
from flmq.common.phase import Phase
from flmq.common.typing import Parameters
from flmq.round import DIRECT, STREAM, PhaseKey
from flmq.server.asks.asks import Asks, Records
from flmq.server.asks.waiting import Watch
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job.request import Ask, Check, Request
from flmq.wire import INLINE_BYTES, FileParameters, Ins, Res, size_of
from flmq.wire.kinds import check_reply

__all__ = ["Answer", "AskStream"]

_LOOK_EVERY = 1.0


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


class AskStream:
    """Asks of one kind, each its own phase. For one thread; a job has one stream per kind."""

    def __init__(
        self,
        asks: Asks,
        phase: Phase,
        clock: Callable[[], float],
        records: Records | None = None,
        *,
        check: Check = check_reply,
        timeout: float | None = None,
    ) -> None:
        """Resume the asks of this kind that an earlier server of the job left.

        ``clock`` returns monotonic seconds; ``check`` says why a reply does not answer its ask;
        ``timeout`` is in seconds per ask; None: wait without limit.
        """
        self._asks = asks
        self._phase = phase
        self._clock = clock
        self._records = records
        self._check = check
        self._timeout = timeout
        self._looked = clock()
        self._settled: queue.SimpleQueue[PhaseInFlight] = queue.SimpleQueue()
        self._open: dict[PhaseKey, Watch] = {}
        self._next_call: dict[int, int] = {}
        if records is not None:
            for key in records.phases.unsettled(phase):
                planned = records.phases.planned(key)
                assert planned is not None
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
        request = Request(self._phase, number, [ask], self._timeout, check=self._check, state={})
        self._open[key] = self._asks.open(key, request, on_done=self._settled.put)

    def __iter__(self) -> Iterator[Answer]:
        """Yield answers as they arrive, until no ask is open. Blocks.

        Raises:
            Fenced: another server took charge of the job.
            FlmqError: replies can no longer be received.
        """
        while self._open:
            now = self._clock()
            if now - self._looked >= _LOOK_EVERY:
                self._looked = now
                for watch in list(self._open.values()):
                    watch.see_to()
            try:
                phase = self._settled.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                continue
            if phase.key in self._open:  # otherwise `ask` raised
                yield self._taken(self._open.pop(phase.key))

    def _taken(self, watch: Watch) -> Answer:
        """Close a settled ask, and return its answer."""
        phase = watch.phase
        (ask,) = phase.request.asks
        result = self._asks.close(watch)
        res = next(iter(result.replies.values()), None)
        failure = result.failures[0] if result.failures else None
        return Answer(ask.client_id, phase.key.server_round, ask.ins, res, failure)


def _lasting(ins: Ins) -> Ins:
    """Return ``ins``, with parameters that are small enough for the task loaded from their file.

    The file may belong to a checkpoint that is deleted before the ask is answered.
    """
    parameters = parameters_of(ins)
    if not isinstance(parameters, FileParameters) or size_of(parameters) > INLINE_BYTES:
        return ins
    tensors = list(parameters.tensors)
    return with_parameters(ins, Parameters(tensors, parameters.tensor_type, parameters.names))
