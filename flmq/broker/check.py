"""One finding of `flmq.broker.doctor`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Check"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    ok: bool | None
    """None if not needed, or if it cannot be judged."""
    found: str
    mend: str = ""
    """The command that fixes it; empty if nothing needs fixing."""
