"""How many rounds a run has, and when a round has waited long enough."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.errors import UsageError
from flmq.server.rhythm.deadlines import RoundTimeout, is_duration
from flmq.server.rhythm.early_stopping import StopRule

__all__ = ["InvalidServerConfig", "ServerConfig"]


class InvalidServerConfig(UsageError, ValueError):
    """A field of the configuration is out of its range, or two contradict each other."""


@dataclass(frozen=True, slots=True, repr=False)
class ServerConfig:
    """Configuration of a run; every field has a default.

    Raises:
        InvalidServerConfig: a field is out of its range, or two contradict each other.
    """

    num_rounds: int = 1
    """Rounds of training; 0 to evaluate the initial model only."""
    round_timeout: RoundTimeout = None
    """Seconds that a phase of a round waits for answers; None to wait until all have answered.

    Or a function of the round that returns one of them, as in ``lambda server_round: 600 if
    server_round == 1 else 60``; 0 is the question for the initial parameters. What it returned is
    in the journal, and holds for a phase that is resumed."""
    min_results: int | None = None
    """A phase that closes with fewer results than this is discarded: the model stays."""
    target_results: int | None = None
    """A phase closes once it has this many results, though more clients were asked."""
    early_stopping: StopRule | None = None
    """When to stop before ``num_rounds``: an `EarlyStopping`, or a function of the `History` that
    returns why, or True; it is called after each round. None for all rounds."""

    def __post_init__(self) -> None:
        """Check ranges, and that the counts do not contradict each other."""
        _check_count("num_rounds", self.num_rounds, at_least=0)
        timeout = self.round_timeout
        if timeout is not None and not callable(timeout) and not is_duration(timeout):
            raise InvalidServerConfig(
                f"round_timeout is {timeout!r}: give seconds above 0, or None to wait "
                "until everybody has answered; or a function of the round that returns one of them"
            )
        for name in ("min_results", "target_results"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), at_least=1)
        if self.min_results and self.target_results and self.min_results > self.target_results:
            raise InvalidServerConfig(
                f"min_results is {self.min_results} and target_results {self.target_results}: a "
                "phase would close before it has enough; lower min_results or raise target_results"
            )
        rule = self.early_stopping
        if rule is not None and (isinstance(rule, type) or not callable(rule)):
            what = f"the class {rule.__name__}" if isinstance(rule, type) else repr(rule)
            raise InvalidServerConfig(
                f"early_stopping is {what}: give an EarlyStopping(patience=...), or a function of "
                "the History that returns why to stop"
            )

    def __repr__(self) -> str:
        """Show the configuration as Flower does, and flmq's own fields if set."""
        timeout = "no round_timeout"
        if callable(self.round_timeout):
            timeout = "round_timeout by round"
        elif self.round_timeout is not None:
            timeout = f"round_timeout={self.round_timeout}s"
        own = [
            f"{name}={value}"
            for name, value in (
                ("min_results", self.min_results),
                ("target_results", self.target_results),
                ("early_stopping", self.early_stopping),
            )
            if value is not None
        ]
        return ", ".join([f"num_rounds={self.num_rounds}", timeout, *own])


def _check_count(name: str, value: object, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise InvalidServerConfig(f"{name} is {value!r}: give a whole number, {at_least} or more")
