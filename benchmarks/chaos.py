"""``python -m benchmarks.chaos``: many disturbed runs of real processes; see --help.

Each run is drawn from a seed: a job, crashes at named points of server and clients, and kills,
cuts and worse from outside. What must hold after it stands in tests/chaos/verdict.py.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.program import Variant
from tests.chaos.run import Run, play
from tests.chaos.schedule import (
    SERVER_POINTS,
    WORKER_POINTS,
    Kind,
    Schedule,
    draw,
    draw_with_sites,
)
from tests.chaos.stage import Stage
from tests.chaos.verdict import check
from tests.sites.director import aggregators, as_scheduled
from tests.sites.stage import HUB, STAR, Sites

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(slots=True)
class Tally:
    """What a campaign has come to."""

    runs: int = 0
    failed: list[int] = field(default_factory=list)
    """Seeds."""
    seconds: float = 0.0
    hits: Counter[str] = field(default_factory=Counter)
    faults: Counter[Kind] = field(default_factory=Counter)
    trainings: int = 0
    repeated: int = 0

    def add(self, run: Run, problems: list[str]) -> None:
        """Count a run."""
        self.runs += 1
        self.seconds += run.seconds
        self.hits += run.hits
        self.faults += run.faults
        begun = [training for training, _ in run.begun()]
        self.trainings += len(set(begun))
        self.repeated += len(begun) - len(set(begun))
        if problems:
            self.failed.append(run.schedule.seed)


def main() -> None:
    """Play the runs that the options name; exit with 1 if one of them is not as promised."""
    options = _options()
    folder = options.folder or _ROOT / "runs" / "chaos" / time.strftime("%Y%m%d-%H%M%S")
    tally = Tally()
    schedules = [draw(options.seed + i, faults=options.faults) for i in range(options.runs)]
    if options.control:
        schedules = [Schedule(-1 - i, variant) for i, variant in enumerate(Variant)] + schedules
    for batch in _batches(schedules, folder):
        _play_on_one_stage(batch, folder, tally)
    below = [name for name in STAR if name != HUB]
    over_sites = [
        draw_with_sites(options.seed + i, below, faults=options.faults)
        for i in range(options.sites)
    ]
    for batch in _batches(over_sites, folder):
        _play_over_sites(batch, folder, tally)
    _tell("\n" + _table(tally))
    if tally.failed:
        _tell(f"not as promised: seeds {tally.failed}; folders and logs in {folder}")
        sys.exit(1)
    folder.rmdir()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first run (default: 1)")
    parser.add_argument("--runs", type=int, default=10, help="how many (default: 10)")
    parser.add_argument(
        "--sites", type=int, default=0, help="how many besides, over three sites (default: 0)"
    )
    parser.add_argument("--faults", type=int, default=9, help="from outside, a run (default: 9)")
    parser.add_argument(
        "--control", action="store_true", help="first play each kind of job undisturbed"
    )
    parser.add_argument(
        "--folder", type=Path, help="for logs of runs that fail (default: runs/chaos/<time>)"
    )
    return parser.parse_args()


def _batches(schedules: list[Schedule], folder: Path) -> Iterator[Iterator[Schedule]]:
    """Hand out the schedules, to as many stages as it takes."""
    waiting = iter(schedules)
    left = [len(schedules)]

    def some() -> Iterator[Schedule]:
        for schedule in waiting:
            left[0] -= 1
            yield schedule

    folder.mkdir(parents=True, exist_ok=True)
    while left[0]:
        yield some()


def _play_on_one_stage(schedules: Iterator[Schedule], folder: Path, tally: Tally) -> None:
    """Play until one fails: the next gets a fresh broker, whatever that one did to its own."""
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(Stage())
        for schedule in schedules:
            place = folder / f"seed-{schedule.seed}"
            if _judge(play(stage, schedule, place), tally):
                shutil.copy(stage.node.log, place / "rabbitmq.log")
                return


def _play_over_sites(schedules: Iterator[Schedule], folder: Path, tally: Tally) -> None:
    """Likewise, with the brokers of three sites."""
    with Sites() as sites:
        for schedule in schedules:
            place = folder / f"sites-{schedule.seed}"
            script, first = as_scheduled(sites), aggregators(sites)
            if _judge(play(sites, schedule, place, script=script, first=first), tally):
                for name in sites.names:
                    shutil.copy(sites.node(name).log, place / f"rabbitmq-{name}.log")
                return


def _judge(run: Run, tally: Tally) -> list[str]:
    """Count and tell a run, and keep nothing of it if it is as promised; return its problems."""
    problems = check(run)
    tally.add(run, problems)
    _tell(_line(run, problems))
    if not problems:
        shutil.rmtree(run.folder)
    return problems


def _line(run: Run, problems: list[str]) -> str:
    schedule = run.schedule
    where = f" behind {len(schedule.aggregators)} aggregators" if schedule.aggregators else ""
    what = ", ".join(f"{kind.value} {n}" for kind, n in sorted(run.faults.items(), key=_name))
    verdict = "as promised" if not problems else "NOT AS PROMISED:\n    " + "\n    ".join(problems)
    return (
        f"seed {schedule.seed}: {schedule.variant.value}, {schedule.clients} clients{where}, "
        f"{schedule.rounds} rounds; {run.hits.total()} crashes; {what or 'nothing'}; "
        f"{run.seconds:.1f} s; {verdict}"
    )


def _table(tally: Tally) -> str:
    summary = (
        f"{tally.runs} runs in {tally.seconds / 60:.1f} min, {len(tally.failed)} not as promised; "
        f"{tally.hits.total()} crashes at named points, {tally.faults.total()} disturbances from "
        f"outside; {tally.trainings} trainings, {tally.repeated} of them cut by a kill and "
        "repeated"
    )
    lines = [
        summary,
        "",
        "| crash point | times |",
        "|---|---|",
        *(f"| `{point}` | {tally.hits[point]} |" for point in SERVER_POINTS + WORKER_POINTS),
        "",
        "| from outside | times |",
        "|---|---|",
        *(f"| {kind.value} | {tally.faults[kind]} |" for kind in Kind),
    ]
    return "\n".join(lines)


def _name(item: tuple[Kind, int]) -> str:
    return item[0].value


def _tell(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
