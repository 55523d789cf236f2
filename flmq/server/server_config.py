"""How many rounds a run has, and when a round has waited long enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ServerConfig"]


@dataclass(frozen=True, slots=True, repr=False)
class ServerConfig:
    """Configuration of a run; every field has a default.

    Raises:
        ValueError: a field is out of its range, or two contradict each other.
    """

    num_rounds: int = 1
    """Rounds of training; 0 to evaluate the initial model only."""
    round_timeout: float | None = None
    """Seconds that a phase of a round waits for answers; None to wait until all have answered."""
    min_results: int | None = None
    """A phase that closes with fewer results than this is discarded: the model stays."""
    target_results: int | None = None
    """A phase closes once it has this many results, though more clients were asked."""

    def __post_init__(self) -> None:
        """Check ranges, and that the counts do not contradict each other."""
        _check_count("num_rounds", self.num_rounds, at_least=0)
        if self.round_timeout is not None and not _is_duration(self.round_timeout):
            raise ValueError(
                f"round_timeout is {self.round_timeout!r}: give seconds above 0, or None to wait "
                "until everybody has answered"
            )
        for name in ("min_results", "target_results"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), at_least=1)
        if self.min_results and self.target_results and self.min_results > self.target_results:
            raise ValueError(
                f"min_results is {self.min_results} and target_results {self.target_results}: a "
                "phase would close before it has enough; lower min_results or raise target_results"
            )

    def __repr__(self) -> str:
        """Show the configuration as Flower does, and flmq's own fields if set."""
        timeout = (
            "no round_timeout"
            if self.round_timeout is None
            else f"round_timeout={self.round_timeout}s"
        )
        own = [
            f"{name}={value}"
            for name, value in (
                ("min_results", self.min_results),
                ("target_results", self.target_results),
            )
            if value is not None
        ]
        return ", ".join([f"num_rounds={self.num_rounds}", timeout, *own])


def _check_count(name: str, value: object, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} is {value!r}: give a whole number, {at_least} or more")


def _is_duration(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value < math.inf
