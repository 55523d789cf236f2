"""A job's identity: what makes its tasks' ids and nonces, and fences its predecessors."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flmq.common.names import check_job_name
from flmq.common.phase import Phase
from flmq.wire import derive_nonce, task_id

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """One federated run, from its first start to its end."""

    name: str
    run_id: str
    """Tells this run from an earlier one of the same name, whose tasks may still lie about."""
    secret: bytes = field(repr=False)
    """Key of the tasks' nonces, and of all keys of a protected run; known to the server alone."""
    epoch: int
    """Raised at every start of the job's server."""

    @classmethod
    def create(cls, name: str, clock: Callable[[], int] = time.time_ns) -> Job:
        """Begin a job called ``name``; ``clock`` gives Unix nanoseconds.

        Raises:
            InvalidJobName: the name does not fit a queue's name.
        """
        return cls(
            name=check_job_name(name),
            run_id=secrets.token_hex(8),
            secret=secrets.token_bytes(32),
            epoch=clock() // 1_000_000,
        )

    def task_id(self, server_round: int, phase: Phase, client_id: str, call: int) -> str:
        """The same for the same question: asking again under it is harmless.

        ``call`` counts how often this phase was opened in this round (a strategy may ask for
        properties twice).
        """
        return task_id(f"{self.name}/{self.run_id}/{call}", server_round, phase, client_id)

    def nonce(self, task: str) -> bytes:
        """What a reply must echo to prove that its sender has read the task."""
        return derive_nonce(self.secret, task)
