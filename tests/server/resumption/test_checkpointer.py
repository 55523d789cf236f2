"""A strategy's attributes that nobody saves: the next server knows which were lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from flmq.journal.state import StateValue
from flmq.server.history import History
from flmq.server.resumption.checkpointer import Checkpointer, NoSuchMeasure
from flmq.server.resumption.job_journal import JobJournal
from flmq.server.strategy import FedAvg
from tests.journal.runs import begun, model


class Momentum(FedAvg):
    """Without state_dict."""

    velocity = 0.0


class Saved(Momentum):
    """With it."""

    def state_dict(self) -> dict[str, StateValue]:
        return {"velocity": self.velocity}

    def load_state_dict(self, state: Mapping[str, StateValue]) -> None:
        self.__dict__.update(state)


@pytest.mark.parametrize(("kind", "lost"), [(Momentum, ("velocity",)), (Saved, ())])
def test_what_was_changed_and_not_saved_is_known_to_be_lost(
    kind: type[Momentum], lost: tuple[str, ...], tmp_path: Path
) -> None:
    journal = begun(tmp_path / "job")
    checkpointer, strategy = Checkpointer(JobJournal(journal), lambda _phase, _round: None), kind()
    assert checkpointer.resume(strategy) is None
    strategy.velocity = 0.9  # in the very round that is closed
    checkpointer.checkpoint(1, model(1), History(), strategy, {"metrics": {}})
    second = Checkpointer(JobJournal(journal), lambda _phase, _round: None)
    assert second.resume(kind()) is not None
    assert (checkpointer.lost, second.lost) == ((), lost)
    journal.close()


def test_a_best_model_by_what_nobody_measures_is_refused_with_what_is_measured(
    tmp_path: Path,
) -> None:
    journal = begun(tmp_path / "job")
    checkpointer = Checkpointer(JobJournal(journal), lambda _phase, _round: None, "nosuch")
    strategy = Momentum()
    nothing: dict[str, StateValue] = {"loss": None, "metrics": {}}
    measured: dict[str, StateValue] = {"loss": 0.5, "metrics": {"f1": 0.25}}
    checkpointer.resume(strategy)
    checkpointer.checkpoint(0, model(1), History(), strategy, measured)
    checkpointer.checkpoint(1, model(1), History(), strategy, nothing)
    with pytest.raises(NoSuchMeasure, match="by 'nosuch': this run measures loss, f1"):
        checkpointer.checkpoint(2, model(1), History(), strategy, measured)
    assert journal.rounds_done == 1
    other = Checkpointer(JobJournal(journal), lambda _phase, _round: None, "f1")
    other.resume(strategy)
    other.checkpoint(2, model(1), History(), strategy, measured)
    journal.close()
