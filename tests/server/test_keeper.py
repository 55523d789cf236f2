"""A strategy's attributes that nobody saves: the next server knows which were lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from flmq.journal.state import StateValue
from flmq.server.history import History
from flmq.server.keeper import Keeper, NoSuchMeasure
from flmq.server.ledger import Ledger
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
    keeper, strategy = Keeper(Ledger(journal), lambda _phase, _round: None), kind()
    assert keeper.resume(strategy) is None
    strategy.velocity = 0.9  # in the very round that is closed
    keeper.checkpoint(1, model(1), History(), strategy, {"metrics": {}})
    second = Keeper(Ledger(journal), lambda _phase, _round: None)
    assert second.resume(kind()) is not None
    assert (keeper.lost, second.lost) == ((), lost)
    journal.close()


def test_a_best_model_by_what_nobody_measures_is_refused_with_what_is_measured(
    tmp_path: Path,
) -> None:
    journal = begun(tmp_path / "job")
    keeper = Keeper(Ledger(journal), lambda _phase, _round: None, "nosuch")
    strategy = Momentum()
    nothing: dict[str, StateValue] = {"loss": None, "metrics": {}}
    measured: dict[str, StateValue] = {"loss": 0.5, "metrics": {"f1": 0.25}}
    keeper.resume(strategy)
    keeper.checkpoint(0, model(1), History(), strategy, measured)
    keeper.checkpoint(1, model(1), History(), strategy, nothing)
    with pytest.raises(NoSuchMeasure, match="by 'nosuch': this run measures loss, f1"):
        keeper.checkpoint(2, model(1), History(), strategy, measured)
    assert journal.rounds_done == 1
    other = Keeper(Ledger(journal), lambda _phase, _round: None, "f1")
    other.resume(strategy)
    other.checkpoint(2, model(1), History(), strategy, measured)
    journal.close()
