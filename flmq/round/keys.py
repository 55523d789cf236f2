"""Names of what is asked: a phase of a job, and one ask in it."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.phase import Phase

__all__ = ["DIRECT", "PhaseKey", "ask_name", "client_of"]

DIRECT = 1_000_000
"""Calls from here on are of phases that a strategy opened by calling a `ClientProxy`."""
_NTH = "#"
"""No client id has this in it."""


@dataclass(frozen=True, slots=True)
class PhaseKey:
    """Which phase: the same for the same question, however often the server starts."""

    server_round: int
    phase: Phase
    call: int = 0
    """How often this phase of this round was opened before; from `DIRECT` on, a number that is
    made of the question itself."""

    @property
    def is_direct(self) -> bool:
        """Whether a strategy asked, through a `ClientProxy`."""
        return self.call >= DIRECT

    def __str__(self) -> str:
        """For people to read."""
        if self.is_direct:
            return f"round {self.server_round}, {self.phase.value}, asked by the strategy"
        again = f", call {self.call}" if self.call else ""
        return f"round {self.server_round}, {self.phase.value}{again}"


def ask_name(client_id: str, nth: int) -> str:
    """Name of the ``nth`` ask (from 0) of a client within a phase: its id, then ``id#2``, ..."""
    return client_id if nth == 0 else f"{client_id}{_NTH}{nth + 1}"


def client_of(ask: str) -> str:
    """The client that is asked."""
    return ask.partition(_NTH)[0]
