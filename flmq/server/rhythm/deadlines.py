"""How long a phase of a round may take, and how many replies it needs; per round where wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.errors import InvalidReturnValue, UsageError
from flmq.round import Policy

__all__ = [
    "InvalidRoundPolicy",
    "RoundPolicy",
    "RoundTimeout",
    "TimeoutByRound",
    "is_duration",
    "timeout_of",
]

TimeoutByRound = Callable[[int], float | None]
"""Returns how many seconds a phase of a round may take; None: no limit."""
RoundTimeout = float | TimeoutByRound | None


class InvalidRoundPolicy(UsageError, ValueError):
    """A field of a round's policy is out of its range, or two contradict each other."""


@dataclass(frozen=True, slots=True)
class RoundPolicy:
    """When a phase of a round closes, and when it counts.

    Raises:
        InvalidRoundPolicy: a field is out of its range, or two contradict each other.
    """

    timeout: float | None = None
    """Seconds to the deadline; None to wait until all have answered."""
    min_results: int = 0
    """With fewer results than this the phase is discarded: the model stays."""
    target_results: int | None = None
    """It closes once it has this many results, though more clients were asked."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.timeout is not None and not is_duration(self.timeout):
            raise InvalidRoundPolicy(
                f"timeout is {self.timeout!r}: give seconds above 0, or None to wait until "
                "everybody has answered"
            )
        _check_count("min_results", self.min_results, 0)
        if self.target_results is not None:
            _check_count("target_results", self.target_results, 1)
            if self.min_results > self.target_results:
                raise InvalidRoundPolicy(
                    f"min_results is {self.min_results} and target_results {self.target_results}: "
                    "a phase would close before it has enough; lower min_results or raise "
                    "target_results"
                )

    @property
    def counts(self) -> Policy:
        """The policy as the round's state machine has it."""
        return Policy(self.min_results, self.target_results)


def timeout_of(timeouts: TimeoutByRound, server_round: int) -> float | None:
    """Return the seconds that a phase of this round may take; None: no limit.

    Raises:
        InvalidReturnValue: the function returned something else.
    """
    seconds = timeouts(server_round)
    if seconds is None or is_duration(seconds):
        return seconds
    raise InvalidReturnValue(
        f"round_timeout({server_round}) returned {seconds!r}: return seconds above 0, or None to "
        "wait until everybody has answered"
    )


def is_duration(value: object) -> bool:
    """Return whether ``value`` is a positive, finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value < math.inf


def _check_count(name: str, value: object, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise InvalidRoundPolicy(f"{name} is {value!r}: give a whole number, {at_least} or more")
