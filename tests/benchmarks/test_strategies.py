"""Strategies beside Flower's: a table of what there is, and why a figure is missing."""

from __future__ import annotations

import pytest

import flmq.server.strategy
from benchmarks.cells import Cell
from benchmarks.strategies import CASES, Case, table


def test_a_strategy_is_measured_on_disk_in_memory_and_beside_flowers() -> None:
    cases = [Case("Bulyan", 1.0, {}, their_options={"to_keep": 0}), Case("OfAnotherVersion")]
    head, _, *lines = table(cases, Cell(4, 40_000), rounds=1)
    assert head.startswith("| 4 x 40 KB | flmq, CPU s |")
    assert len(lines) == 1
    name, *figures = lines[0].strip("| ").split(" | ")
    assert name == "Bulyan"
    assert len([float(figure) for figure in figures]) == 8


def test_what_has_no_figure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLMQ_BENCH_FLWR_PYTHON", "/no/such/python")
    lines = table([Case("Krum", 1.0, {"num_malicious_clients": 1})], Cell(4, 40_000), rounds=1)
    assert lines[-2].startswith("- flmq's Krum: flmq.server.strategy.robust.needs.TooFewReplies: 4")
    assert "/no/such/python has no flwr" in lines[-1]


def test_every_case_is_a_strategy() -> None:
    for case in CASES:
        assert hasattr(flmq.server.strategy, case.name), case.name
