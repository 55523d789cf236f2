"""``python -m benchmarks``: measure, print tables, keep the figures; see --help."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

from benchmarks import page, plot
from benchmarks.cells import CELLS, LARGE, MEMORY, Cell, parse_cell
from benchmarks.contenders import CONTESTANTS, IN_ROUNDS, ON_MEMORY
from benchmarks.machine import describe, load_average
from benchmarks.results import Outcome, Report, median_run
from benchmarks.rounds import Harness
from flmq.broker.find import obtain_broker

_ROOT = Path(__file__).resolve().parent.parent
_OTHERS = ("accumulator", "asynchronous", "compression", "simulation", "strategies")
"""Benchmarks that need no broker: modules that print what they find."""
_LONG = ("scale", "links", "provision", "ui", "live")
"""Likewise, with a broker of their own: only where named."""


def main() -> None:
    """Measure what the options name, or everything that takes no more than some twenty minutes."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    if options.from_json is None:
        report = _measure(options)
        path = _ROOT / "runs" / "bench" / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
        report.save(path)
        _tell(f"kept in {path.relative_to(_ROOT)}")
    else:
        report = Report.load(options.from_json)
    contents = page.sections(report)
    print("\n".join(f"\n## {name}\n\n{text}" for name, text in contents.items()))
    if options.write:
        page.PAGE.write_text(page.fill(page.PAGE.read_text("utf-8"), contents), "utf-8")
        if report.speed:
            plot.draw(report, page.PICTURE)
    if any(each.failed for each in report.speed + report.memory):
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        choices=["rounds", "memory", *_OTHERS, *_LONG, []],
        metavar="WHAT",
        help=f"of rounds, memory, {', '.join(_OTHERS)} (default: all), {', '.join(_LONG)}",
    )
    parser.add_argument(
        "--cells",
        nargs="+",
        type=parse_cell,
        default=list(CELLS),
        metavar="CELL",
        help=f"clients x model, as 10x50MB (default: {', '.join(map(str, CELLS))})",
    )
    parser.add_argument("--large", action="store_true", help=f"{LARGE} too; Flower cannot")
    parser.add_argument(
        "--memory-cells",
        nargs="+",
        type=parse_cell,
        default=list(MEMORY),
        metavar="CELL",
        help=f"where the server's memory is looked at (default: {', '.join(map(str, MEMORY))})",
    )
    parser.add_argument("--rounds", type=int, default=5, help="after the warm-up (default: 5)")
    parser.add_argument(
        "--runs",
        type=int,
        default=1,
        help="of each cell's rounds, all processes anew; the tables have the run whose ratio of "
        "flmq to Flower is the median (default: 1)",
    )
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=list(CONTESTANTS),
        default=list(CONTESTANTS),
        metavar="NAME",
        help=f"of {', '.join(CONTESTANTS)} (default: all)",
    )
    parser.add_argument(
        "--write", action="store_true", help="put the tables and the picture into docs/"
    )
    parser.add_argument(
        "--from-json", type=Path, metavar="FILE", help="measure nothing: show what FILE has"
    )
    options = parser.parse_args()
    options.what = options.what or ["rounds", "memory", *_OTHERS]
    if min(options.rounds, options.runs) < 1:
        parser.error("--rounds and --runs must be 1 or more")
    return options


def _measure(options: argparse.Namespace) -> Report:
    speed: list[Outcome] = []
    memory: list[Outcome] = []
    with obtain_broker(on_step=_tell) as broker:
        machine = describe(broker)
        with tempfile.TemporaryDirectory(prefix="flmq-bench-") as logs:
            harness = Harness(broker, options.rounds, Path(logs), _tell)
            if "rounds" in options.what:
                names = [name for name in options.contestants if name in IN_ROUNDS]
                for cell in options.cells:
                    speed += _runs(harness, cell, names, options.runs)
                if options.large:
                    with_large = [n for n in names if n != "flower"]
                    speed += replace(harness, rounds=3).play(LARGE, with_large)
            if "memory" in options.what:
                memory = _memory(harness, options)
    texts = {name: _run(name) for name in (*_OTHERS, *_LONG) if name in options.what}
    machine["load after"] = load_average()
    return Report(machine, tuple(speed), tuple(memory), texts)


def _runs(harness: Harness, cell: Cell, names: list[str], runs: int) -> list[Outcome]:
    """Play a cell several times over, all processes anew; the outcomes are the median run's."""
    outcomes, ratios = median_run([harness.play(cell, names) for _ in range(runs)])
    if runs > 1 and len(names) > 1:
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        first, second = (CONTESTANTS[name].label for name in names[:2])
        _tell(f"{cell}, {first} / {second}: {each}, median {sorted(ratios)[(runs - 1) // 2]:.2f}")
    return outcomes


def _memory(harness: Harness, options: argparse.Namespace) -> list[Outcome]:
    """Play two rounds a cell, one contestant after the other: the peak is all that counts."""
    names = [name for name in options.contestants if name in ON_MEMORY]
    harness = replace(harness, rounds=2)
    return [
        outcome
        for cell in options.memory_cells
        for name in names
        for outcome in harness.play(cell, [name])
    ]


def _run(name: str) -> str:
    """Run another benchmark and return what it prints."""
    _tell(name)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}"],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
