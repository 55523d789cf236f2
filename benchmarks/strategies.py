"""What each strategy takes to aggregate a round's replies, beside Flower's of the same name.

Each measurement is a process of its own (`benchmarks.contestants.aggregating`), ours and Flower's
one after the other: the median of some rounds after a warm-up, and the peak of memory above what
there was before the replies. Seconds are the process's CPU seconds: nothing here waits, so on a
machine with nothing else to do they are those of a clock, and on another one they mean something.

Flower's server has the replies in memory, and they count; flmq's has them in files, and takes most
of them in while others are on their way: "last" is what it does after the last one. "in memory" is
a program that calls `aggregate_fit` itself. Strategies that are not there are left out. Prints a
Markdown table.

Run: ``python -m benchmarks.strategies [--cell 10x50MB] [--rounds N] [--only NAME ...]``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import flmq.server.strategy
from benchmarks.cells import Cell, parse_cell
from benchmarks.contenders import NotAvailable, flower_python

_MEAN, _ROBUST = 0.5, 1.0
"""Shares of Flower's time that are to be reached."""


@dataclass(frozen=True, slots=True)
class Case:
    """A strategy and how it is made."""

    name: str
    goal: float | None = _MEAN
    options: Mapping[str, Any] = field(default_factory=dict)
    theirs: str | None = None
    """Flower's name, if it has another; "" if it has none."""
    their_options: Mapping[str, Any] = field(default_factory=dict)
    """What Flower's needs besides."""
    around: str = ""
    """The strategy that it wraps."""


def _private(name: str, **options: Any) -> Case:
    """A wrapper for differential privacy."""
    return Case(name, None, {"num_sampled_clients": 10, **options}, around="FedAvg")


CASES = (
    Case("FedAvg"),
    Case("FedAvgM", options={"server_momentum": 0.9}),
    Case("FedAdagrad"),
    Case("FedAdam"),
    Case("FedYogi"),
    Case("FedProx", options={"proximal_mu": 0.1}),
    Case("QFedAvg"),
    Case("FaultTolerantFedAvg"),
    Case("FedMedian", _ROBUST),
    Case("FedTrimmedAvg", _ROBUST),
    Case("Krum", _ROBUST, {"num_malicious_clients": 2}),
    Case("MultiKrum", _ROBUST, {"num_malicious_clients": 2, "num_clients_to_keep": 5}, "Krum"),
    Case("Bulyan", _ROBUST, {"num_malicious_clients": 1}, their_options={"to_keep": 0}),
    _private("DPFedAvgFixed", clip_norm=1.0),
    _private("DPFedAvgAdaptive", init_clip_norm=1.0, clip_count_stddev=2.0),
    _private("DifferentialPrivacyServerSideFixedClipping", noise_multiplier=1.0, clipping_norm=1.0),
    _private(
        "DifferentialPrivacyServerSideAdaptiveClipping",
        noise_multiplier=1.0,
        clipped_count_stddev=2.0,
    ),
    _private("DifferentialPrivacyClientSideFixedClipping", noise_multiplier=1.0, clipping_norm=1.0),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one process found; or why there is none."""

    seconds: float = 0.0
    last: float = 0.0
    """Of them those after the last reply."""
    models: float = 0.0
    """Peak of memory."""
    failed: str = ""

    def __str__(self) -> str:
        """For the table."""
        return "-" if self.failed else f"{self.seconds:.2f}"

    @property
    def memory(self) -> str:
        """For the table."""
        return "-" if self.failed else f"{self.models:.1f}"


def main() -> None:
    """Measure what the options name, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", type=parse_cell, default=Cell(10, 50_000_000))
    parser.add_argument("--rounds", type=int, default=3, help="after the warm-up (default: 3)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="strategies to measure")
    options = parser.parse_args()
    chosen = [case for case in CASES if options.only is None or case.name in options.only]
    print("\n".join(table(chosen, options.cell, options.rounds)))


def table(cases: Iterable[Case], cell: Cell, rounds: int) -> list[str]:
    """Return the lines of a Markdown table, and a line for each figure that is missing."""
    head = ["flmq, CPU s", "last", "in memory", "Flower", "flmq / Flower", "goal"]
    head += ["flmq, models", "Flower, models"]
    lines = [f"| {cell} | {' | '.join(head)} |", f"| --- |{' ---: |' * len(head)}"]
    missing = []
    for case in cases:
        if not hasattr(flmq.server.strategy, case.name):
            continue
        print(case.name, file=sys.stderr, flush=True)
        ours, in_memory = (_of_ours(case, cell, rounds, disk) for disk in (True, False))
        theirs = _of_flowers(case, cell, rounds)
        there = not ours.failed and not theirs.failed
        ratio = f"{ours.seconds / theirs.seconds:.2f}" if there else "-"
        goal = "-" if case.goal is None else f"{case.goal:.1f}"
        last = "-" if ours.failed else f"{ours.last:.2f}"
        cells = [case.name, ours, last, in_memory, theirs, ratio, goal, ours.memory, theirs.memory]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        missing += [
            f"- {who}'s {case.name}: {figure.failed}"
            for who, figure in (("flmq", ours), ("flmq", in_memory), ("Flower", theirs))
            if figure.failed
        ]
    return [*lines, *(["", *dict.fromkeys(missing)] if missing else [])]


def _of_ours(case: Case, cell: Cell, rounds: int, on_disk: bool) -> Figure:
    where = ["--on-disk"] if on_disk else []
    return _figure(sys.executable, "flmq", case.name, case, case.options, cell, rounds, where)


def _of_flowers(case: Case, cell: Cell, rounds: int) -> Figure:
    name = case.name if case.theirs is None else case.theirs
    if not name:
        return Figure(failed="there is none")
    try:
        python = flower_python()
    except NotAvailable as error:
        return Figure(failed=str(error))
    options = {**case.options, **case.their_options}
    return _figure(python, "flwr", name, case, options, cell, rounds, [])


def _figure(
    python: str,
    library: str,
    name: str,
    case: Case,
    options: Mapping[str, Any],
    cell: Cell,
    rounds: int,
    more: list[str],
) -> Figure:
    command = [python, "-m", "benchmarks.contestants.aggregating", f"--library={library}"]
    command += [f"--strategy={name}", f"--options={json.dumps(options)}", f"--around={case.around}"]
    command += [f"--replies={cell.clients}", f"--model-bytes={cell.model_bytes}"]
    command += [f"--rounds={rounds}", *more]
    env = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        return Figure(failed=said[-1])
    found = json.loads(done.stdout.splitlines()[-1])
    seconds, last = median(found["seconds"]), median(found["last"])
    return Figure(seconds, last, found["peak"] / cell.model_bytes)


if __name__ == "__main__":
    main()
