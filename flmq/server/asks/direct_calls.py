"""Give each call of a strategy to a single client a name that is the same after a restart."""

from __future__ import annotations

import threading
from collections import Counter
from hashlib import blake2b

from flmq.common.parameter import parameters_of, without_parameters
from flmq.round import DIRECT, PhaseKey
from flmq.server.job.request import Ask
from flmq.wire import Ins, Task, encode, refer
from flmq.wire.kinds import kind_of

__all__ = ["DirectCalls"]


class DirectCalls:
    """Names direct calls. Thread-safe.

    A name consists of the current step (``configure_fit`` of round 3), the client, the question,
    and how often that question was asked before. When a kill interrupts a strategy's method, the
    method is called again, asks again, and finds the answers to its first try.
    """

    def __init__(self) -> None:
        """Start before the first round."""
        self._lock = threading.Lock()
        self.server_round = 0
        self._step = ""
        self._times: Counter[tuple[str, int, bytes]] = Counter()

    def begin(self, server_round: int, step: str) -> None:
        """Note which step of which round the strategy is about to be called for."""
        with self._lock:
            self.server_round, self._step = server_round, step

    def key(self, phase_name: PhaseKey, ask: Ask) -> PhaseKey:
        """Return the key of the phase of this one ``ask``: ``phase_name`` with its own call."""
        question = _digest(ask.client_id, ask.ins)
        with self._lock:
            step = self._step
            same = step, phase_name.server_round, question
            times = self._times[same]
            self._times[same] += 1
        named = blake2b(digest_size=7, person=b"flmq.direct")
        for part in (step.encode(), question, times.to_bytes(8, "big")):
            named.update(len(part).to_bytes(8, "big") + part)
        call = DIRECT + int.from_bytes(named.digest(), "big")
        return PhaseKey(phase_name.server_round, phase_name.phase, call)


def _digest(client_id: str, ins: Ins) -> bytes:
    """Return a digest of the client and the complete question."""
    digest = blake2b(digest_size=16, person=b"flmq.question")
    parameters = parameters_of(ins)
    model = "" if parameters is None else refer(parameters).digest
    # Digest what is sent: questions that no client could tell apart are the same question.
    asked = without_parameters(ins)
    task = Task("-", "-", 0, kind_of(ins).phase, client_id, 0, bytes(16), asked)
    for part in (model.encode(), encode(task)):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
