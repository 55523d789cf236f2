"""Rounds that are no plain ones, as the page shows them: direct calls, and streams."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flmq.server.strategy import FedBuff
from flmq.ui.reading.runs import Runs
from flmq.ui.said import as_text
from tests.end_to_end.federation import Federation
from tests.end_to_end.fixtures import memory_federation
from tests.server.asks.test_direct_calls import Asked, Calling
from tests.server.streams.test_asynchronous_server import Learner, first

__all__ = ["memory_federation"]


@pytest.fixture
def runs(tmp_path: Path) -> Any:
    found = Runs(tmp_path)
    yield found
    found.close()


def test_direct_calls_are_numbered_and_told_in_one_sentence(
    memory_federation: Federation, tmp_path: Path, runs: Runs
) -> None:
    memory_federation.worker({"a": {}, "b": {}}, Asked().client)
    memory_federation.run(Calling(), rounds=1, runs_dir=tmp_path, job="calls").history()
    found = runs.round("calls", 1)
    calls = [each["call"] for each in found["phases"] if each["phase"] == "get_properties"]
    assert len(calls) > 1
    assert calls == list(range(1, len(calls) + 1))
    assert [each["call"] for each in found["phases"] if each["phase"] == "fit"].count(0) == 1
    said = [as_text(each) for each in found["said"]]
    assert len(said) == 2
    assert said[0].startswith("Nobody slowed round 1, and nobody is missing: 2 replies")
    assert said[1].startswith("What the strategy asked by itself was answered (")


def test_a_stream_has_a_row_an_ask_and_is_over_with_its_round(
    memory_federation: Federation, tmp_path: Path, runs: Runs
) -> None:
    seen: Counter[tuple[str, object]] = Counter()
    memory_federation.worker({name: {} for name in "cdef"}, lambda context: Learner(context, seen))
    strategy = FedBuff(
        buffer_size=2,
        initial_parameters=first(),
        on_fit_config_fn=lambda server_round: {"asked": server_round},
    )
    memory_federation.run(strategy, rounds=4, runs_dir=tmp_path, job="stream", clients=4).history()
    for number in range(1, 5):
        found = runs.round("stream", number)
        for phase in found["phases"]:
            assert phase["streamed"]
            assert phase["call"] == 0
            asks = [part["ask"] for part in phase["parts"]]
            assert len(set(asks)) == len(asks)
            is_over = all(part["outcome"] != "open" for part in phase["parts"])
            assert (phase["closed_ms"] is not None) == is_over
        assert not any("being added up" in as_text(each) for each in found["said"])
