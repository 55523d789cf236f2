"""The harness with real processes and a real broker, in small; and what it does with failures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import contenders
from benchmarks.cells import Cell
from benchmarks.rounds import Harness
from flmq.broker.find import Broker, obtain_broker

SMALL = Cell(2, 100_000)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with obtain_broker() as found:
        yield found


@pytest.fixture
def harness(broker: Broker, tmp_path: Path) -> Harness:
    return Harness(broker, rounds=2, logs=tmp_path, tell=lambda line: None, patience=60.0)


def play_with(monkeypatch: pytest.MonkeyPatch, harness: Harness, role: str, program: str) -> str:
    """Play pika with ``program`` in the place of its server or client; return why it failed."""
    real = contenders.CONTESTANTS["pika"]

    def command(asked: str) -> list[str]:
        return [sys.executable, "-c", program] if asked == role else real.command(asked)

    monkeypatch.setitem(contenders.CONTESTANTS, "pika", replace(real, command=command))
    [outcome] = harness.play(SMALL, ["pika"])
    assert outcome.rounds == ()
    return outcome.failed


def test_flmq_and_bare_pika_play_in_turns(harness: Harness) -> None:
    flmq, pika, tuned = harness.play(SMALL, ["flmq", "pika", "pika-tuned"])
    for outcome in (flmq, pika, tuned):
        assert outcome.failed == ""
        # A small model gets more rounds than are asked for.
        assert len(outcome.rounds) == 15
        assert all(0 < each.seconds < 60 for each in outcome.rounds)
        assert outcome.memory is not None
        assert outcome.memory >= 0
    assert flmq.exact is True
    assert pika.exact is None
    if harness.broker.node is not None:
        # Bytes on the sockets: the model once, and little besides.
        assert pika.server_sent is not None
        assert SMALL.model_bytes < pika.server_sent < 1.1 * SMALL.model_bytes
        assert flmq.server_sent is not None
        assert flmq.server_sent > SMALL.model_bytes


def test_contestant_that_dies_is_told_with_its_last_words(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = play_with(monkeypatch, harness, "server", "raise SystemExit('no such thing')")
    assert "a server ended with status 1" in failed
    assert "no such thing" in failed


def test_contestant_that_loses_a_client_is_told(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a client ended with status 3" in play_with(
        monkeypatch, harness, "client", "raise SystemExit(3)"
    )


def test_contestant_that_says_nothing_has_its_time(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; sys.stdin.read()"
    failed = play_with(monkeypatch, replace(harness, patience=1.0), "server", program)
    assert "not 'up' within 1 s" in failed


def test_contestant_that_does_not_fit_is_not_started(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.rounds.available_memory", lambda: 10**8)
    [outcome] = harness.play(Cell(40, 50_000_000), ["flower"])
    assert "of memory" in outcome.failed


def test_flower_without_flwr_says_how_to_get_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(contenders.FLWR_PYTHON, "/nowhere/python")
    [outcome] = harness.play(SMALL, ["flower"])
    assert "flmq[bench]" in outcome.failed
    assert contenders.flower_version() is None
