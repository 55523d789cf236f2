"""A run over several sites has the bits of the flat one, whatever fails on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.program import Variant
from tests.chaos.run import Run, play, until, until_over
from tests.chaos.schedule import SERVER, Schedule
from tests.chaos.supervisor import Supervisor
from tests.chaos.verdict import check
from tests.sites.director import aggregator, aggregators
from tests.sites.stage import HUB, Sites

_MANY = 16
_ALL_TRAIN = 4
"""Trainings begun when every client of these runs is in its first."""


def test_links_cut_and_brokers_killed_in_mid_round(sites: Sites, tmp_path: Path) -> None:
    """Replies wait at a cut link; a killed site broker, hub broker and server find their own."""

    def script(supervisor: Supervisor, run: Run) -> None:
        until(lambda: len(run.begun()) >= _ALL_TRAIN, "everybody trains")
        sites.link("eu").cut()
        run.gate.touch()
        until(lambda: len(run.done()) >= _ALL_TRAIN, "everybody has trained")
        sites.kill("asia")
        sites.restart("asia")
        sites.link("eu").mend()
        until(lambda: _begun(run, 2) > 0, "somebody trains in round 2")
        sites.kill(HUB)
        supervisor.kill(SERVER)
        sites.restart(HUB)
        until_over(supervisor, run)

    schedule = Schedule(1, Variant.LARGE, clients=4, rounds=3)
    run = play(sites, schedule, tmp_path / "run", script=script)
    assert check(run) == []


@pytest.mark.slow
def test_aggregators_killed_in_mid_round(sites: Sites, tmp_path: Path) -> None:
    """One before it has a reply and again after; the sums have the bits, and cross in less."""

    def script(supervisor: Supervisor, run: Run) -> None:
        until(lambda: len(run.begun()) >= _MANY, "everybody trains")
        supervisor.kill(aggregator("eu"))
        run.gate.touch()
        until(lambda: len(run.done()) > _MANY, "somebody evaluates")
        supervisor.kill(aggregator("eu"))
        supervisor.kill(aggregator("asia"))
        until_over(supervisor, run)

    schedule = Schedule(1, Variant.LARGE, clients=_MANY, rounds=2, aggregators=("eu", "asia"))
    before = sites.link("eu").bytes()
    first = aggregators(sites)
    run = play(sites, schedule, tmp_path / "run", script=script, first=first)
    assert check(run) == []
    models = schedule.rounds * 4 * schedule.variant.model_size
    # Half of the clients are there: their replies would be twice as much.
    assert sites.link("eu").bytes().since(before).up < models * _MANY / 4


def _begun(run: Run, server_round: int) -> int:
    return sum(training.server_round == server_round for training, _ in run.begun())
