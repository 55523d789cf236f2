"""``python -m benchmarks.soak``: a long job, clients coming and going; does anything grow?

Samples server, one worker that stays, and broker every so many rounds, and fits a line to each
figure after a warm-up. Exits with 1 where something grows by more than it may.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.chaos.stage import Stage
from tests.chaos.supervisor import Supervisor

_PROGRAM = Path(__file__).with_name("soaked.py")
_FLMQ = str(Path(sys.executable).parent / "flmq")
_JOB = "soak"
_STAYS = "c0"
_GUESTS = ("c1", "c2", "c3")
_SETTINGS = {"raft.wal_max_size_bytes": str(8 * 2**20)}
"""A quorum queue's log stays in memory until it is this long, 512 MiB by default: a soak would see
nothing but its first growth (RabbitMQ, "Quorum Queues: Resource Use")."""
_WARM_UP = 0.3
"""Part of the rounds before which figures may grow: caches fill, allocators settle."""
_ROUND = re.compile(r"^round (\d+)/", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that must not grow."""

    name: str
    unit: str
    scale: float
    may_grow: float
    """By how many units in a thousand rounds."""


FIGURES = {
    # What every client did in every round stays in record and journal: that is their job.
    "server memory": Figure("server, resident memory", "MiB", 2**-20, 8.0),
    "server files": Figure("server, file descriptors", "", 1.0, 1.0),
    "server threads": Figure("server, threads", "", 1.0, 1.0),
    "worker memory": Figure("worker, resident memory", "MiB", 2**-20, 4.0),
    "worker files": Figure("worker, file descriptors", "", 1.0, 1.0),
    "worker threads": Figure("worker, threads", "", 1.0, 1.0),
    "broker memory": Figure("broker, resident memory", "MiB", 2**-20, 30.0),
    "broker files": Figure("broker, file descriptors", "", 1.0, 10.0),
    "queues": Figure("queues", "", 1.0, 0.5),
    "messages": Figure("messages in all queues", "", 1.0, 5.0),
    "run folder": Figure("run folder", "MiB", 2**-20, 6.0),
    "spools": Figure("files in the workers' spools", "", 1.0, 5.0),
}


def main() -> None:
    """Run the job, print the slopes, and exit with 1 if one is too steep."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="flmq-soak-") as folder, Stage(_SETTINGS) as stage:
        stage.set()
        samples = _soak(stage, Path(folder), options)
    rounds = [sample["round"] for sample in samples]
    took = samples[-1]["seconds"]
    print(
        f"\n{rounds[-1]:.0f} rounds in {took / 60:.1f} min, {samples[-1]['departures']:.0f} times a"
    )
    print("client left (half of them killed) and came back\n")
    steep = _print_slopes(samples)
    if rounds[-1] < options.rounds:
        sys.exit(f"the job ended after round {rounds[-1]:.0f}")
    if steep:
        sys.exit("grows: " + ", ".join(steep))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--every", type=int, default=20, help="rounds between samples")
    parser.add_argument("--seed", type=int, default=1, help="of who leaves when")
    return parser.parse_args()


def _soak(stage: Stage, folder: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    env = {"FLMQ_BROKER_URL": stage.url, "FLMQ_HEARTBEAT": "1"}
    rng = random.Random(options.seed)
    samples: list[dict[str, float]] = []
    started, departures = time.monotonic(), 0
    leave_at = started + 5.0
    with Supervisor(env, folder) as supervisor:
        supervisor.start("server", _server_command(folder, options.rounds))
        for name in (_STAYS, *_GUESTS):
            command = [_FLMQ, "client", f"{_PROGRAM}:client", f"--client-id={name}"]
            command += ["--max-deaths=0"]  # whom it kills is innocent
            supervisor.start(name, [*command, f"--state-dir={folder / 'state'}"])
        next_sample = options.every
        while supervisor.exit_status("server") is None and not supervisor.troubles:
            now = time.monotonic()
            if now >= leave_at:
                departures += supervisor.kill(rng.choice(_GUESTS))
                leave_at = now + rng.uniform(1.0, 6.0)
            done = _rounds_done(supervisor)
            if next_sample <= done < options.rounds:  # not while it ends
                next_sample = done + options.every
                sample = _sample(stage, supervisor, folder)
                more = {"round": done, "seconds": now - started, "departures": departures}
                samples.append({**sample, **more})
                print(_line(samples[-1]), flush=True)
            time.sleep(0.1)
        supervisor.dismiss()
        if supervisor.troubles:
            sys.exit("; ".join(supervisor.troubles))
    return samples


def _server_command(folder: Path, rounds: int) -> list[str]:
    return [
        *(_FLMQ, "server", f"{_PROGRAM}:server", f"--job={_JOB}", "-c", f"rounds={rounds}"),
        f"--runs-dir={folder / 'runs'}",
    ]


def _rounds_done(supervisor: Supervisor) -> int:
    numbers = _ROUND.findall(supervisor.log("server"))
    return int(numbers[-1]) if numbers else 0


def _sample(stage: Stage, supervisor: Supervisor, folder: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    pids = {
        "server": supervisor.pid("server"),
        "worker": supervisor.pid(_STAYS),
        "broker": stage.node.pid,
    }
    for who, pid in pids.items():
        if pid is not None:
            found |= {f"{who} {what}": number for what, number in _process(pid).items()}
    queues = stage.queues()
    found["queues"], found["messages"] = len(queues), sum(queues.values())
    found["run folder"] = sum(_size(path) for path in (folder / "runs" / _JOB).rglob("*"))
    found["spools"] = len(list((folder / "state").glob("*/spool/*")))
    return found


def _process(pid: int) -> dict[str, float]:
    """Resident bytes, threads and open files of a process; nothing of one that has ended."""
    place = Path(f"/proc/{pid}")
    try:
        status = dict(
            line.split(":", 1) for line in (place / "status").read_text("utf-8").splitlines()
        )
        files = len(list((place / "fd").iterdir()))
    except OSError:
        return {}
    return {
        "memory": int(status["VmRSS"].split()[0]) * 1024,
        "threads": int(status["Threads"]),
        "files": files,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0  # removed meanwhile


def _line(sample: Mapping[str, float]) -> str:
    figures = ", ".join(
        f"{name} {sample[name] * figure.scale:.4g}"
        for name, figure in FIGURES.items()
        if name in sample
    )
    return f"round {sample['round']:.0f}, {sample['seconds']:.0f} s: {figures}"


def _print_slopes(samples: Sequence[Mapping[str, float]]) -> list[str]:
    """Print a table; the names of what grows too much come back."""
    last = samples[-1]["round"]
    settled = [sample for sample in samples if sample["round"] >= _WARM_UP * last]
    steep = []
    print("| figure | after warm-up | at the end | in 1,000 rounds | may grow by |")
    print("|---|---|---|---|---|")
    for name, figure in FIGURES.items():
        points = [(s["round"], s[name] * figure.scale) for s in settled if name in s]
        if len(points) < 3:
            continue
        slope = 1000.0 * _slope(points)
        if slope > figure.may_grow:
            steep.append(f"{figure.name} by {slope:.1f} {figure.unit} in 1,000 rounds")
        unit = f" {figure.unit}" if figure.unit else ""
        print(
            f"| {figure.name} | {points[0][1]:.1f}{unit} | {points[-1][1]:.1f}{unit} "
            f"| {slope:+.2f}{unit} | {figure.may_grow:g}{unit} |"
        )
    return steep


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's: the median of the slopes between all pairs; outliers do not move it."""
    x, y = np.array(points).T
    i, j = np.triu_indices(len(points), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))


if __name__ == "__main__":
    main()
