"""Keys of what is asked: a phase of a job, and one ask in it."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.phase import Phase

__all__ = ["DIRECT", "STREAM", "PhaseKey", "ask_name", "client_of"]

STREAM = 500_000
"""Calls from here on, below `DIRECT`, are of asks of a stream."""
DIRECT = 1_000_000
"""Call numbers from here on are phases that a strategy opened by calling a `ClientProxy`."""
_NTH = "#"
"""Separator; no client id contains it."""


@dataclass(frozen=True, slots=True)
class PhaseKey:
    """Identifies a phase: the same for the same question, however often the server starts."""

    server_round: int
    phase: Phase
    call: int = 0
    """How often this phase of this round was opened before: by rounds; from `STREAM` on by streams;
    from `DIRECT` on it is a number that is made of the question itself."""

    @property
    def is_direct(self) -> bool:
        """Whether a strategy asked directly, through a `ClientProxy`."""
        return self.call >= DIRECT

    @property
    def is_streamed(self) -> bool:
        """Whether it is an ask of a stream."""
        return STREAM <= self.call < DIRECT

    def __str__(self) -> str:
        """Return text for people."""
        if self.is_direct:
            return f"round {self.server_round}, {self.phase.value}, asked by the strategy"
        if self.is_streamed:
            return f"round {self.server_round}, {self.phase.value}, ask {self.call - STREAM + 1}"
        again = f", call {self.call}" if self.call else ""
        return f"round {self.server_round}, {self.phase.value}{again}"


def ask_name(client_id: str, nth: int) -> str:
    """Return the name of a client's ``nth`` ask (from 0) in a phase: its id, then ``id#2``, ..."""
    return client_id if nth == 0 else f"{client_id}{_NTH}{nth + 1}"


def client_of(ask: str) -> str:
    """Return the client of an ask."""
    return ask.partition(_NTH)[0]
