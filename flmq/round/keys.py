"""Keys and names: a phase of a job, and an ask in a phase."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.phase import Phase

__all__ = ["DIRECT", "STREAM", "PhaseKey", "ask_name", "client_of"]

STREAM = 500_000
"""Call numbers from here up to `DIRECT` belong to asks of a stream."""
DIRECT = 1_000_000
"""Call numbers from here on belong to direct calls of a strategy to a `ClientProxy`."""
_NTH = "#"
"""Separates client id and number; no client id contains it."""


@dataclass(frozen=True, slots=True)
class PhaseKey:
    """Identify a phase. A restarted server gives the same phase the same key."""

    server_round: int
    phase: Phase
    call: int = 0
    """Tells phases of the same kind in one round apart. Rounds count from 0, streams from `STREAM`;
    from `DIRECT` on, the number is a digest of the direct call."""

    @property
    def is_direct(self) -> bool:
        """Whether the phase is a strategy's direct call of a `ClientProxy`."""
        return self.call >= DIRECT

    @property
    def is_streamed(self) -> bool:
        """Whether the phase is one ask of an `AskStream`."""
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
