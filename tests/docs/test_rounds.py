"""The page on rounds: its programs do what it says, and its tables name what there is."""

from __future__ import annotations

from pathlib import Path

from flmq.common.phase import Phase
from flmq.server import Callback, EarlyStopping, RoundPolicy, criteria
from tests.docs.pages import ROOT, program
from tests.docs.test_observing import run

PAGE = ROOT / "docs" / "rounds.md"


def test_its_program_selects_stops_and_calls_back(tmp_path: Path) -> None:
    """The loss halves each round, from 1; a gain of 0.1 is won until the fourth round."""
    done = run(program(PAGE, "rounds.py"), tmp_path)
    assert done.stdout.splitlines() == [
        f"round {number}: loss {0.5 ** (number - 1)}" for number in range(1, 7)
    ]
    assert "fit 3 of 3 answered" in done.stderr
    assert "stopped early: loss has not improved by more than 0.1 for 2 rounds" in done.stderr


def test_its_policy_asks_more_than_it_needs() -> None:
    made: dict[str, type] = {}
    exec(program(PAGE, "policy.py"), made)
    policy = made["Hurried"]().round_policy(2, Phase.FIT, 13, RoundPolicy(None, 2))
    assert policy == RoundPolicy(60.0, 2, 10)


def test_it_names_every_criterion_callback_and_option() -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = [name for name in criteria.__all__ if name != "InvalidCriterion"]
    names += [f"{name}(" for name in vars(Callback) if name.startswith("on_")]
    names += [f"| `{name}` |" for name in EarlyStopping.__dataclass_fields__]
    assert [name for name in names if name not in text] == []
