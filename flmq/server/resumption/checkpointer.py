"""Let a run survive its server: checkpoints, plans, and the strategy's own state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
from flmq.server.resumption.best_model import BestModel
from flmq.server.resumption.job_journal import JobJournal, Planned
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.wrapping import layers
from flmq.wire import refer

__all__ = ["Checkpointer", "NoSuchMeasure"]


class NoSuchMeasure(UsageError):
    """The best model is to be chosen by something that the run does not measure."""

    def __init__(self, best: str, measured: Sequence[str]) -> None:
        """Name ``best``, and what is measured."""
        super().__init__(
            f"no best model can be kept by {best!r}: this run measures {', '.join(measured)}. Go "
            "on with one of these (--keep-best), or without"
        )


class Checkpointer:
    """Store the progress of the server's loop in the job's journal."""

    def __init__(
        self,
        job_journal: JobJournal,
        planned: Callable[[Phase, int], Planned | None],
        best: str | None = None,
        best_model: BestModel | None = None,
    ) -> None:
        """Store in ``job_journal``; ``planned`` returns the plan of the next phase.

        ``best`` is the measurement by which the best model is chosen, if any; ``best_model`` keeps
        its file.
        """
        self._job_journal = job_journal
        self._best = best
        self._best_model = best_model
        self.planned = planned
        self._watch: AttributeWatch | None = None
        self._unsaved: tuple[str, ...] = ()
        self._model: str | None = None
        self.lost: tuple[str, ...] = ()
        """Attributes of the strategy that an earlier server had changed without saving them."""

    def resume(self, strategy: Strategy) -> Checkpoint | None:
        """Restore the strategy's state, and return where to resume; None to start from scratch."""
        checkpoint = self._job_journal.resume()
        if checkpoint is not None:
            strategy.load_state_dict(checkpoint.state)
            if checkpoint.server_round > 0:
                self._best = None  # checked already, in earlier rounds
            self.lost = tuple(checkpoint.summary.get("unsaved", ()))
            self._keep_best()
        # FedAvg drops its initial parameters once it has returned them; the server itself sets the
        # global ones in each round.
        self._watch = AttributeWatch(
            layers(strategy)[-1], ignore=("initial_parameters", "global_parameters")
        )
        return checkpoint

    def failures(self) -> Mapping[int, Collection[str]]:
        """Return which clients failed in each of the last closed rounds."""
        return self._job_journal.failures()

    def state(self, strategy: Strategy) -> Mapping[str, StateValue]:
        """Return the strategy's state; warn if it has state that it does not return."""
        watched = type(layers(strategy)[-1])
        if watched.state_dict is Strategy.state_dict and self._watch is not None:
            changed = tuple(self._watch.changed())
            if changed and changed != self._unsaved:
                self._unsaved = changed
                logger.warning(
                    "strategy %s changed %s: after a restart of the server they would be as they "
                    "were at its start; implement state_dict and load_state_dict",
                    watched.__name__,
                    ", ".join(changed),
                )
        return strategy.state_dict()

    def _check_best(self, summary: Mapping[str, Any]) -> None:
        """Refuse, at the first measured round, a ``best`` that is not among its measurements."""
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
    ) -> str:
        """Close a round durably; ``summary`` is information about it for people.

        Return the model's digest.

        Raises:
            NoSuchMeasure: the best model is to be chosen by something the first rounds do not
                measure.
        """
        if server_round > 0:
            self._check_best(summary)
        # Before the summary: it detects what was changed in this very round.
        state = self.state(strategy)
        summary = {
            **summary,
            "model": refer(parameters).digest,
            "unsaved": list(self._unsaved),
        }
        crash_point("server.round_aggregated")
        self._model = self._job_journal.checkpoint(
            server_round, parameters, history, state, summary
        )
        crash_point("server.round_closed")
        self._keep_best()
        return self._model

    def _keep_best(self) -> None:
        if self._best_model is not None:
            self._best_model.update()

    def model(self) -> Parameters | None:
        """Return the model of the last checkpoint, mapped from disk; None before the first."""
        return None if self._model is None else self._job_journal.parameters(self._model)
