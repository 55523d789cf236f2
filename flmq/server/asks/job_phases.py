"""The phases of rounds: whom a strategy chose is asked as one phase, and waited for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from flmq.common.phase import Phase
from flmq.journal.errors import NotKept
from flmq.round import PhaseKey
from flmq.server.asks.asks import Asks, Records
from flmq.server.asks.direct_calls import DirectCalls
from flmq.server.job.request import PhaseResult, Request
from flmq.server.resumption.job_journal import Planned

__all__ = ["JobPhases"]


class JobPhases:
    """Runs the phases of one job. Thread-safe."""

    def __init__(
        self, asks: Asks, records: Records | None, losses: Callable[[], tuple[int, int]]
    ) -> None:
        """Run them as ``asks``; ``losses`` are replies that broke off, and stray chunks, so far."""
        self._asks = asks
        self._records = records
        self._losses = losses
        self._told = (0, 0)
        self._lock = threading.Lock()
        self._calls: Counter[tuple[int, Phase]] = Counter()
        self._direct = DirectCalls()

    def begin(self, server_round: int, step: str) -> None:
        """Say what the strategy is about to be called for: names its direct calls."""
        self._direct.begin(server_round, step)

    def planned(self, phase: Phase, server_round: int) -> Planned | None:
        """Whom an earlier server of this job asked what, in the phase that comes next."""
        if self._records is None:
            return None
        with self._lock:
            call = self._calls[server_round, phase]
        return self._records.phases.planned(PhaseKey(server_round, phase, call))

    def run_phase(self, request: Request) -> PhaseResult:
        """Ask, and wait until the phase closes; raises as `Asks.open` and `Watch.wait` do."""
        with self._lock:
            call = self._calls[request.server_round, request.phase]
            self._calls[request.server_round, request.phase] += 1
        key = PhaseKey(request.server_round, request.phase, call)
        return self._with_losses(self._asks.run(key, request))

    def run_direct(self, request: Request, group_id: int | None) -> PhaseResult:
        """Ask the one client of ``request`` for its strategy, in round ``group_id`` or this one.

        The call survives a kill of the server: made again, it finds its answer.
        """
        number = self._direct.server_round if group_id is None else group_id
        (ask,) = request.asks
        request = replace(request, server_round=number, state={})
        while True:
            key = self._direct.key(PhaseKey(number, request.phase), ask)
            try:
                return self._asks.run(key, request)
            except NotKept:
                continue  # of a round that is over: this is a new question

    def _with_losses(self, result: PhaseResult) -> PhaseResult:
        """What was gathered, and what was lost on the way since the phase before."""
        with self._lock:
            (incomplete, stray), before = self._losses(), self._told
            self._told = incomplete, stray
        return replace(
            result,
            incomplete_uploads=incomplete - before[0],
            stray_chunks=stray - before[1],
        )
