"""Initial parameters of a client: whose is decided by the seed, and in the journal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flmq.client.context import ClientContext
from flmq.common import Config, NDArrays, ndarrays_to_parameters
from flmq.common.errors import NoInitialParameters
from flmq.common.phase import Phase
from flmq.observe.events import PhaseOpened
from flmq.server.asks import asks
from tests.end_to_end.federation import Federation, Nudge, RunningServer, fed_avg

CLIENTS = ("a", "b", "c")


class Own(Nudge):
    """Has a model of its own to begin with, and counts how often it was asked for it."""

    asked = 0
    able = True

    def get_parameters(self, config: Config) -> NDArrays:
        type(self).asked += 1
        if not self.able:
            raise ValueError("not yet")
        return [np.full(3, ord(self.client_id), np.float32)]


def own(context: ClientContext) -> Own:
    return Own(context.client_id)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "asked", 0)
    monkeypatch.setattr(Own, "able", True)


def run(federation: Federation, seed: int, runs_dir: Path | None = None) -> RunningServer:
    strategy = fed_avg(3, initial_parameters=None)
    return federation.run(strategy, rounds=0, seed=seed, runs_dir=runs_dir)


def giver(server: RunningServer) -> str:
    """The one client that was asked."""
    server.history()
    (opened,) = server.watch.of(PhaseOpened)
    assert opened.phase is Phase.GET_PARAMETERS
    client_id: str = opened.asked[0]
    expected = ndarrays_to_parameters([np.full(3, ord(client_id), np.float32)])
    assert server.watch.model() == b"".join(expected.tensors)
    return client_id


def test_the_seed_decides_and_not_who_came_first(memory_federation: Federation) -> None:
    chosen: dict[int, set[str]] = {}
    for first in CLIENTS:
        for seed in range(4):
            memory_federation.serve(first, source=own)
            server = run(memory_federation, seed)
            # Only now the others: the first is not asked before they are here.
            memory_federation.serve(*(each for each in CLIENTS if each != first), source=own)
            chosen.setdefault(seed, set()).add(giver(server))
            for worker in memory_federation.workers.values():
                worker.stop()
    assert all(len(each) == 1 for each in chosen.values()), chosen
    assert len(set.union(*chosen.values())) > 1, "the seed has a say in it"


@pytest.mark.parametrize("point", ["server.phase_planned", "server.phase_closed"])
def test_a_server_that_died_goes_on_with_the_same_client(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    federation.serve(*CLIENTS, source=own)

    def die(name: str) -> None:
        if name == point:
            raise RuntimeError("died")

    with monkeypatch.context() as patched:
        patched.setattr(asks, "crash_point", die)
        first = run(federation, 1, tmp_path)
        with pytest.raises(RuntimeError, match="died"):
            first.history()
        (opened,) = first.watch.of(PhaseOpened)
    federation.serve(*"defgh", source=own)  # among whom the seed would choose another
    again = run(federation, 1, tmp_path)
    assert (giver(again),) == opened.asked
    assert Own.asked == 1


def test_a_client_that_could_not_is_asked_anew_by_the_next_server(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.serve(*CLIENTS, source=own)
    monkeypatch.setattr(Own, "able", False)
    with pytest.raises(NoInitialParameters, match="not yet"):
        run(federation, 1, tmp_path).history()
    monkeypatch.setattr(Own, "able", True)
    server = run(federation, 1, tmp_path)
    server.history()
    assert Own.asked == 2
