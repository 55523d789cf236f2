"""What makes a run survive its server: checkpoints, plans, and the strategy's own state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flmq.common.crashpoints import crash_point
from flmq.common.errors import UsageError
from flmq.common.logger import logger
from flmq.common.phase import Phase
from flmq.common.typing import Parameters
from flmq.journal.records import Checkpoint
from flmq.journal.state import StateValue
from flmq.journal.unsaved import AttributeWatch
from flmq.server.history import History
from flmq.server.resumption.job_journal import JobJournal, Planned
from flmq.server.strategy.strategy import Strategy
from flmq.wire import refer

__all__ = ["Checkpointer", "NoSuchMeasure"]


class NoSuchMeasure(UsageError):
    """The best model is to be kept by something that the run does not measure."""

    def __init__(self, best: str, measured: Sequence[str]) -> None:
        """Name it, and what is measured."""
        super().__init__(
            f"no best model can be kept by {best!r}: this run measures {', '.join(measured)}. Go "
            "on with one of these (--keep-best), or without"
        )


class Checkpointer:
    """Keeps the server's loop in the job's journal."""

    def __init__(
        self,
        job_journal: JobJournal,
        planned: Callable[[Phase, int], Planned | None],
        best: str | None = None,
    ) -> None:
        """Keep in ``job_journal``; ``planned`` gives the plan of the phase that comes next.

        ``best`` is what the best model is kept by, where one is.
        """
        self._job_journal = job_journal
        self._best = best
        self.planned = planned
        self._watch: AttributeWatch | None = None
        self._unsaved: tuple[str, ...] = ()
        self.lost: tuple[str, ...] = ()
        """Attributes of the strategy that an earlier server had changed, and nobody saved."""

    def resume(self, strategy: Strategy) -> Checkpoint | None:
        """Where to go on, with the strategy's state put back; None: from the beginning."""
        checkpoint = self._job_journal.resume()
        if checkpoint is not None:
            strategy.load_state_dict(checkpoint.state)
            if checkpoint.server_round > 0:
                self._best = None  # the rounds before have shown what is measured
            self.lost = tuple(checkpoint.summary.get("unsaved", ()))
        # FedAvg lets go of its initial parameters once they are given; the global ones the server
        # sets itself, in each round.
        self._watch = AttributeWatch(strategy, ignore=("initial_parameters", "global_parameters"))
        return checkpoint

    def state(self, strategy: Strategy) -> Mapping[str, StateValue]:
        """The strategy's state; says so where it has some that it does not give."""
        if type(strategy).state_dict is Strategy.state_dict and self._watch is not None:
            changed = tuple(self._watch.changed())
            if changed and changed != self._unsaved:
                self._unsaved = changed
                logger.warning(
                    "strategy %s changed %s: after a restart of the server they would be as they "
                    "were at its start; implement state_dict and load_state_dict",
                    type(strategy).__name__,
                    ", ".join(changed),
                )
        return strategy.state_dict()

    def _check_best(self, summary: Mapping[str, Any]) -> None:
        """Refuse, at the first round that is measured, a measure that is none of its."""
        measured = [*(["loss"] if summary.get("loss") is not None else []), *summary["metrics"]]
        if self._best is None or not measured:
            return
        if self._best not in measured:
            raise NoSuchMeasure(self._best, measured)
        self._best = None

    def checkpoint(
        self,
        server_round: int,
        parameters: Parameters,
        history: History,
        strategy: Strategy,
        summary: Mapping[str, StateValue],
    ) -> None:
        """Close a round for good; ``summary`` is what there is to say of it.

        Raises:
            NoSuchMeasure: the best model is to be kept by what the first rounds do not measure.
        """
        if server_round > 0:
            self._check_best(summary)
        # Before the summary: it finds what was changed in this very round.
        state = self.state(strategy)
        summary = {
            **summary,
            "model": refer(parameters).digest,
            "unsaved": list(self._unsaved),
        }
        crash_point("server.round_aggregated")
        self._job_journal.checkpoint(server_round, parameters, history, state, summary)
        crash_point("server.round_closed")
