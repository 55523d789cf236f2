"""What came out of a run, as data, and its way to a JSON file and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cells import Cell

__all__ = ["Outcome", "Report", "Round", "median_run", "paired_ratio"]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one contestant, in seconds; None: not known."""

    seconds: float
    server_cpu: float
    clients_cpu: float | None
    """Of all clients together."""
    broker_cpu: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a contestant did in a cell."""

    contestant: str
    cell: Cell
    rounds: tuple[Round, ...] = ()
    """Without the warm-up."""
    idle_rss: int | None = None
    peak_rss: int | None = None
    """Of the server, in bytes."""
    client_peak_rss: int | None = None
    server_sent: float | None = None
    """Bytes a round from the server to the broker."""
    clients_sent: float | None = None
    """Bytes a round from all clients to the broker."""
    exact: bool | None = None
    """Whether the mean of equal models had their bits; None: nothing was averaged."""
    failed: str = ""
    """Why there is no figure."""

    @property
    def seconds(self) -> float | None:
        """Median of a round."""
        return self.median(lambda each: each.seconds)

    @property
    def memory(self) -> int | None:
        """The server's peak above its idle size, in bytes."""
        if self.peak_rss is None or self.idle_rss is None:
            return None
        return self.peak_rss - self.idle_rss

    def median(self, figure: Callable[[Round], float | None]) -> float | None:
        """Return the median of a ``figure`` over the rounds; None where it is not known."""
        values = [figure(each) for each in self.rounds]
        known = [value for value in values if value is not None]
        return median(known) if known and len(known) == len(values) else None


def paired_ratio(one: Outcome, other: Outcome) -> float:
    """Return the median ratio of the seconds of rounds that were played one after the other.

    The two of a pair met the same machine, however busy; a ratio of medians need not.
    """
    pairs = zip(one.rounds, other.rounds, strict=False)
    return median(mine.seconds / theirs.seconds for mine, theirs in pairs)


def median_run(runs: Sequence[Sequence[Outcome]]) -> tuple[list[Outcome], list[float]]:
    """Return the outcomes of the run whose ratio is the median of all runs, and all ratios.

    The ratio is that of the first contestant to the second; a run without one comes last.
    """

    def ratio(run: Sequence[Outcome]) -> float:
        if len(run) < 2 or not run[0].rounds or not run[1].rounds:
            return math.inf
        return paired_ratio(run[0], run[1])

    ordered = sorted(runs, key=ratio)
    return list(ordered[(len(ordered) - 1) // 2]), [ratio(run) for run in runs]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    machine: dict[str, str]
    speed: tuple[Outcome, ...] = ()
    memory: tuple[Outcome, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    """What other benchmarks printed, by their name."""

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            data["machine"],
            tuple(map(_outcome, data["speed"])),
            tuple(map(_outcome, data["memory"])),
            data["texts"],
        )

    def of(self, outcomes: tuple[Outcome, ...], contestant: str, cell: Cell) -> Outcome | None:
        """Find one of ``outcomes``."""
        for each in outcomes:
            if (each.contestant, each.cell) == (contestant, cell):
                return each
        return None


def _outcome(data: dict[str, Any]) -> Outcome:
    return Outcome(
        **{
            **data,
            "cell": Cell(**data["cell"]),
            "rounds": tuple(Round(**each) for each in data["rounds"]),
        }
    )
