"""``python -m benchmarks.bits``: one job over several trees of sites, disturbed: one set of bits.

Each line plays the same rounds of the same eight clients with real processes and real brokers:
all at one broker, behind one aggregator, behind three in two levels; then with the link of the
upper one cut for a minute in mid-round, and with it killed ten times. All must come to the model,
the history and the state that the job has in one process without any broker.

Run: ``make bits``, or ``python -m benchmarks.bits [--cut SECONDS] [--kills N]``; some minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.chaos.program import Variant
from tests.chaos.run import JOB, Run, play, until, until_over
from tests.chaos.schedule import Schedule
from tests.chaos.supervisor import Supervisor
from tests.chaos.verdict import Result, check, result_of, undisturbed
from tests.sites.director import aggregator, aggregators
from tests.sites.stage import HUB, Sites

__all__ = ["REGION", "TREE"]

REGION = "eu"
TREE = {HUB: None, REGION: HUB, "eu-west": REGION, "eu-east": REGION}
"""Three regions in two levels, below the hub."""
_CLIENTS, _ROUNDS = 8, 4
_VARIANT = Variant.LARGE
_PATIENCE = 300.0

Harm = Callable[[Sites, Supervisor, Run], None]
"""What befalls a run when everybody trains; the gate is shut."""


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    homes: Sequence[str]
    """The sites of the clients, in turn."""
    aggregators: Sequence[str] = ()
    harm: Harm = lambda sites, supervisor, run: run.gate.touch()


def main() -> None:
    """Play all lines; exit with 1 where one is not as promised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bits", description=__doc__)
    parser.add_argument("--cut", type=float, default=60.0, help="seconds (default: 60)")
    parser.add_argument("--kills", type=int, default=10, help="(default: 10)")
    options = parser.parse_args()
    regions = list(TREE)[1:]
    lines = [
        _Line("flat: all at one broker", [HUB]),
        _Line("one region", [REGION], [REGION]),
        _Line("three regions in two levels", regions, regions),
        _Line(
            f"likewise, link cut for {options.cut:g} s in mid-round",
            regions,
            regions,
            partial(_cut, seconds=options.cut),
        ),
        _Line(
            f"likewise, aggregator killed {options.kills} times",
            regions,
            regions,
            partial(_kill, times=options.kills),
        ),
    ]
    expected = undisturbed(_VARIANT, _CLIENTS, _ROUNDS)
    print(f"| run | model | strategy's state | up over {REGION}'s link, models a round | |")
    print("|---|---|---|---:|---|")
    print(_row("in one process, without a broker", expected, None, ""), flush=True)
    failed = False
    folder = Path(tempfile.mkdtemp(prefix="flmq-bits-"))
    with Sites(TREE) as sites:
        for line in lines:
            failed |= not _play(sites, line, folder)
    if failed:
        sys.exit(f"not as promised; logs are in {folder}")
    shutil.rmtree(folder)


def _play(sites: Sites, line: _Line, folder: Path) -> bool:
    """Play a line, print it, and return whether all is as promised."""

    def script(supervisor: Supervisor, run: Run) -> None:
        until(lambda: len(run.begun()) >= _CLIENTS, "everybody trains", _PATIENCE)
        line.harm(sites, supervisor, run)
        until_over(supervisor, run, _PATIENCE)

    sites.homes = list(line.homes)
    before = sites.link(REGION).bytes()
    schedule = Schedule(
        1, _VARIANT, _CLIENTS, _ROUNDS, training_seconds=0.5, aggregators=line.aggregators
    )
    place = folder / line.name.replace(" ", "-")
    run = play(sites, schedule, place, script=script, first=aggregators(sites))
    problems = check(run)
    if not run.ended:
        print(f"| {line.name} | | | | {'; '.join(problems)} |", flush=True)
        return False
    verdict = "; ".join(problems) or f"as promised, {run.seconds:.0f} s"
    up = sites.link(REGION).bytes().since(before).up / _ROUNDS / (4 * _VARIANT.model_size)
    print(_row(line.name, result_of(run.runs_dir / JOB), up, verdict), flush=True)
    return not problems


def _cut(sites: Sites, supervisor: Supervisor, run: Run, *, seconds: float) -> None:
    sites.link(REGION).cut()
    run.gate.touch()
    time.sleep(seconds)
    sites.link(REGION).mend()


def _kill(sites: Sites, supervisor: Supervisor, run: Run, *, times: int) -> None:
    """Half of them while nobody may answer yet, the others as fast as it comes back."""
    for number in range(times):
        if number == times // 2:
            run.gate.touch()
        until(lambda: supervisor.kill(aggregator(REGION)), "it is killed")
        time.sleep(0.5)
    run.gate.touch()


def _row(name: str, result: Result, up: float | None, verdict: str) -> str:
    crossed = "" if up is None else f"{up:.1f}"
    return f"| {name} | `{result.model[:12]}` | `{result.state[:12]}` | {crossed} | {verdict} |"


if __name__ == "__main__":
    main()
