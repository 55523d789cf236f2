"""The diagram of the round in the documentation is the one that the round runs on."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from flmq.round.fates import STAGES, STEPS
from flmq.round.state import TASK_TRANSITIONS
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def draw_round() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_round", ROOT / "scripts" / "draw_round.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(draw_round: ModuleType) -> None:
    page = draw_round.PAGE.read_text(encoding="utf-8")
    assert draw_round.drawn_into(page) == page, "draw it again: make round"


def test_every_state_and_every_change_of_state_is_drawn(draw_round: ModuleType) -> None:
    diagram = draw_round.diagram()
    # What several events do alike is one line.
    changes = len(
        {
            (state, target, word)
            for state, row in TASK_TRANSITIONS.items()
            for target, word in row.values()
            if target is not None
        }
    )
    stays = sum(
        any(target is None and word for target, word in row.values())
        for row in TASK_TRANSITIONS.values()
    )
    assert diagram.count(" --> ") == 1 + changes + stays
    for state in TASK_TRANSITIONS:
        assert state.value.capitalize() in diagram


def test_every_stage_and_every_fate_is_drawn(draw_round: ModuleType) -> None:
    drawn = draw_round.fates()
    for stage, fate in STAGES.items():
        assert f'"its ask is {stage.value}" --> {fate.name}[{fate.value}]' in drawn
    for fate in STEPS:
        assert drawn.count(f"    {fate.name} --> {fate.name}_does") == 1


def test_a_page_without_a_place_for_it_is_refused(draw_round: ModuleType) -> None:
    with pytest.raises(ValueError, match="lacks the lines"):
        draw_round.drawn_into("# A page\n")
