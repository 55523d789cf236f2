"""Run the phases of rounds: ask the clients that a strategy chose, and wait for them."""

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
        """Run phases through ``asks``; ``losses`` returns incomplete uploads and stray chunks."""
        self._asks = asks
        self._records = records
        self._losses = losses
        self._told = (0, 0)
        self._lock = threading.Lock()
        self._calls: Counter[tuple[int, Phase]] = Counter()
        self._direct = DirectCalls()

    def begin(self, server_round: int, step: str) -> None:
        """Note which step the strategy is about to be called for, to name its direct calls."""
        self._direct.begin(server_round, step)

    def planned(self, phase: Phase, server_round: int) -> Planned | None:
        """Return an earlier server's plan of the next phase; None: nothing is recorded."""
        if self._records is None:
            return None
        with self._lock:
            call = self._calls[server_round, phase]
        return self._records.phases.planned(PhaseKey(server_round, phase, call))

    def run_phase(self, request: Request) -> PhaseResult:
        """Ask, and wait until the phase closes; raise what `Asks.run` raises."""
        with self._lock:
            call = self._calls[request.server_round, request.phase]
            self._calls[request.server_round, request.phase] += 1
        key = PhaseKey(request.server_round, request.phase, call)
        return self._with_losses(self._asks.run(key, request))

    def run_direct(self, request: Request, group_id: int | None) -> PhaseResult:
        """Ask the one client of ``request`` in round ``group_id``; None: the current round.

        After a kill of the server, the same call finds its recorded answer.
        """
        number = self._direct.server_round if group_id is None else group_id
        (ask,) = request.asks
        request = replace(request, server_round=number, state={})
        while True:
            key = self._direct.key(PhaseKey(number, request.phase), ask)
            try:
                return self._asks.run(key, request)
            except NotKept:
                continue  # that answer was deleted with its round: ask anew

    def _with_losses(self, result: PhaseResult) -> PhaseResult:
        """Return ``result`` with the losses since the previous phase added."""
        with self._lock:
            (incomplete, stray), before = self._losses(), self._told
            self._told = incomplete, stray
        return replace(
            result,
            incomplete_uploads=incomplete - before[0],
            stray_chunks=stray - before[1],
        )
