"""The short schedule: real processes die at every named point, and from outside; same bits.

The long one, drawn from seeds, is ``make chaos``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.chaos.program import Variant
from tests.chaos.run import play
from tests.chaos.schedule import (
    SERVER_POINTS,
    WORKER_POINTS,
    Fault,
    Kind,
    Schedule,
    draw,
    draw_with_sites,
)
from tests.chaos.stage import Stage
from tests.chaos.verdict import check

SCHEDULES = {
    "points of the server": Schedule(
        seed=1,
        crashes={"server": SERVER_POINTS, "c1": ["worker.trained"], "c2": ["worker.task_received"]},
    ),
    "points of the workers": Schedule(
        seed=2,
        variant=Variant.LARGE,
        crashes={
            "server": ["server.model_published"],
            "c0": ["worker.task_spooled", "worker.reply_spooled:2"],
            "c1": ["worker.task_acked", "worker.reply_confirmed:2"],
            "c2": ["worker.before_training"],
        },
        faults=[Fault(0.5, Kind.CUT), Fault(0.5, Kind.DELETE_STREAM)],
    ),
    "kills and cuts": Schedule(
        seed=3,
        variant=Variant.STATEFUL,
        rounds=5,
        faults=[
            Fault(0.3, Kind.KILL_CLIENT, "c0"),
            Fault(0.3, Kind.KILL_SERVER),
            Fault(0.5, Kind.CUT),
            Fault(1.5, Kind.KILL_BROKER),
            Fault(0.1, Kind.KILL_SERVER),
            Fault(0.1, Kind.KILL_CLIENT, "c1"),
        ],
    ),
    "without disks": Schedule(
        seed=4,
        variant=Variant.DISKLESS,
        crashes={"c0": ["worker.before_training"], "c1": ["worker.reply_confirmed"]},
        faults=[Fault(0.2, Kind.KILL_CLIENT, "c2"), Fault(0.5, Kind.HALF_OPEN, seconds=3.0)],
    ),
    "without rounds": Schedule(
        seed=5,
        variant=Variant.BUFFERED,
        rounds=6,
        crashes={
            "server": [
                "server.phase_planned:4",
                "server.reply_journalled:3",
                "server.phase_closed:2",
                "server.round_aggregated:2",
            ],
            "c0": ["worker.trained:2"],
        },
        faults=[Fault(0.3, Kind.KILL_CLIENT, "c1")],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_same_bits_whatever_fails(stage: Stage, tmp_path: Path, name: str) -> None:
    schedule = SCHEDULES[name]
    run = play(stage, schedule, tmp_path / "run")
    assert check(run) == []
    assert run.hits == _points(schedule.crashes)
    assert run.faults == Counter(fault.kind for fault in schedule.faults)


def _points(crashes: Mapping[str, Sequence[str]]) -> Counter[str]:
    return Counter(where.partition(":")[0] for points in crashes.values() for where in points)


def test_the_short_schedule_has_every_point_and_twenty_kills() -> None:
    hits = sum((_points(each.crashes) for each in SCHEDULES.values()), Counter[str]())
    assert set(hits) == {*SERVER_POINTS, *WORKER_POINTS}
    faults = [fault.kind for each in SCHEDULES.values() for fault in each.faults]
    kills = {Kind.KILL_BROKER, Kind.KILL_CLIENT, Kind.KILL_SERVER}
    assert hits.total() + sum(kind in kills for kind in faults) >= 20


def test_a_schedule_is_a_function_of_its_seed() -> None:
    assert draw(5) == draw(5) != draw(6)


def test_a_campaign_of_thirty_meets_every_point_in_every_way() -> None:
    """As far as schedules say; what came to pass is counted by the campaign."""
    schedules = [draw(seed) for seed in range(30)]
    hits = sum((_points(each.crashes) for each in schedules), Counter[str]())
    assert min(hits[point] for point in SERVER_POINTS + WORKER_POINTS) >= 5
    over_sites = [draw_with_sites(seed, ["eu", "asia"]) for seed in range(10)]
    kinds = {fault.kind for each in schedules + over_sites for fault in each.faults}
    assert kinds == set(Kind)
    assert {each.variant for each in schedules} == set(Variant)
