"""A stream of asks: clients kept busy, each answer taken once, and asked again as they settle.

For loops without rounds (FedBuff: Nguyen et al., 2022; FedAsync: Xie et al., 2019). Each ask is a
phase of its own in the job's journal. An answer is durable when it is here, and *taken* for good
when the stream has handed it out: a later server hands out first what was taken since the last
checkpoint, then what had come, and goes on waiting for the others without asking them anew.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from flmq.common.phase import Phase
from flmq.round import DIRECT, PhaseKey
from flmq.server.asks.asks import Asks, Records
from flmq.server.asks.client_failure import ClientFailure
from flmq.server.asks.phase_in_flight import PhaseInFlight
from flmq.server.asks.request import Ask, Check, Request
from flmq.server.asks.waiting import Watch
from flmq.wire import Ins, Res
from flmq.wire.kinds import check_reply

__all__ = ["Answer", "AskStream"]

_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one ask came to."""

    client_id: str
    server_round: int
    """The round, or version of the model, that it was asked in."""
    ins: Ins
    """What was asked."""
    res: Res | None
    """None: it did not contribute."""
    failure: ClientFailure | None = None
    """Why it did not."""


class AskStream:
    """Asks of one kind, renewed as they settle. For one thread."""

    def __init__(
        self,
        asks: Asks,
        phase: Phase,
        records: Records | None = None,
        *,
        check: Check = check_reply,
        timeout: float | None = None,
    ) -> None:
        """Go on with the asks of this kind that an earlier server of the job left.

        ``check`` says why a reply does not answer what was asked; ``timeout`` is the seconds that a
        client has for each.
        """
        self._asks = asks
        self._phase = phase
        self._check = check
        self._timeout = timeout
        self._settled: queue.SimpleQueue[PhaseInFlight] = queue.SimpleQueue()
        self._open: dict[PhaseKey, Watch] = {}
        self._calls: Counter[int] = Counter()
        if records is not None:
            for key in records.phases.unsettled(phase):
                self._calls[key.server_round] = max(self._calls[key.server_round], key.call + 1)
                planned = records.phases.planned(key)
                assert planned is not None
                self._begin(key, planned.asks[0])

    @property
    def busy(self) -> frozenset[str]:
        """The clients that have been asked and whose answer has not been handed out."""
        return frozenset(
            ask.client_id for watch in self._open.values() for ask in watch.phase.request.asks
        )

    def ask(self, client_id: str, ins: Ins, server_round: int) -> None:
        """Ask a client, in this round or version of the model; raises as `Asks.open` does."""
        call = self._calls[server_round]
        self._calls[server_round] += 1
        assert call < DIRECT, "a version is renewed long before"
        self._begin(PhaseKey(server_round, self._phase, call), Ask(client_id, ins))

    def _begin(self, key: PhaseKey, ask: Ask) -> None:
        request = Request(
            self._phase, key.server_round, [ask], self._timeout, check=self._check, state={}
        )
        watch = self._asks.open(key, request, on_done=self._settled.put)
        self._open[key] = watch

    def __iter__(self) -> Iterator[Answer]:
        """Hand out answers as they settle, while any ask is open. Blocks.

        Raises:
            Fenced: another server took charge of the job.
            FlmqError: replies can no longer be taken in.
        """
        while self._open:
            try:
                phase = self._settled.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                for watch in list(self._open.values()):
                    watch.see_to()
                continue
            yield self._taken(self._open.pop(phase.key))

    def _taken(self, watch: Watch) -> Answer:
        """Take a settled ask's answer, for good."""
        phase = watch.phase
        (ask,) = phase.request.asks
        result = self._asks.close(watch)
        res = next(iter(result.replies.values()), None)
        failure = result.failures[0] if result.failures else None
        if isinstance(failure, tuple):
            res, failure = failure[1], None
        return Answer(ask.client_id, phase.key.server_round, ask.ins, res, failure)
