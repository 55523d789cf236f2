"""Feed targets with mutated inputs, and measure each: which errors, how long, how much memory."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

__all__ = ["Finding", "Report", "Target", "fuzz", "held_bytes", "measured"]

_SECONDS = 2.0
"""Most processor seconds of one input, however large."""
_BYTES = 96 << 20
"""Most bytes by which the process may grow for one input."""
_FINDINGS = 10
"""Findings after which a target is given up."""
_PAGE = resource.getpagesize()
_STATM = Path("/proc/self/statm")
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads what others wrote."""

    name: str
    seeds: Sequence[bytes]
    """Valid inputs."""
    read: Callable[[bytes], object]
    errors: tuple[type[BaseException], ...]
    """What it may raise."""
    mutate: Callable[[random.Random, bytes], bytes]
    weight: float = 1.0
    """Its part of all inputs, as against others'."""
    are_valid: bool = True
    """Whether the seeds are: else they only say where to begin."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that was not dealt with as it must be."""

    target: str
    what: str
    data: bytes

    def __str__(self) -> str:
        """Show it, and how to see it again."""
        shown = self.data.hex() if len(self.data) <= 400 else f"{self.data[:200].hex()}..."
        return f"{self.target}: {self.what}\n    {len(self.data)} bytes: {shown}"


@dataclass(slots=True)
class Report:
    """What came of all inputs."""

    inputs: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of inputs by target and outcome: "read", or the error's name."""
    findings: list[Finding] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    """Processor seconds, and whose."""
    largest: tuple[int, str] = (0, "")
    """Bytes by which the process grew, and whose."""

    def read(self, target: str) -> int:
        """Return how many inputs of a target were taken for valid."""
        return self.outcomes[target, "read"]

    def refused(self, target: str) -> int:
        """Return how many inputs of a target were refused by a typed error."""
        return sum(n for (name, what), n in self.outcomes.items() if name == target) - self.read(
            target
        )


def fuzz(
    targets: Sequence[Target],
    inputs: int,
    seed: int,
    *,
    seconds: float | None = None,
    clock: Callable[[], float] = time.process_time,
) -> Report:
    """Feed ``inputs`` mutated inputs to ``targets``, by their weights; ``seconds``: no longer."""
    report, begun = Report(), clock()
    total = sum(target.weight for target in targets)
    left = {target.name: max(1, round(inputs * target.weight / total)) for target in targets}
    found: Counter[str] = Counter()
    rngs = {target.name: random.Random(f"{seed}/{target.name}") for target in targets}
    for target in cycle(targets):
        if not any(left.values()) or (seconds is not None and clock() - begun > seconds):
            return report
        batch = min(left[target.name], 200)
        left[target.name] -= batch
        rng = rngs[target.name]
        for _ in range(batch):
            finding = measured(target, target.mutate(rng, rng.choice(target.seeds)), report)
            if finding is not None:
                report.findings.append(finding)
                found[target.name] += 1
                if found[target.name] >= _FINDINGS:
                    left[target.name] = 0
                    break
    return report


def measured(target: Target, data: bytes, report: Report) -> Finding | None:
    """Have a target read one input; return what is wrong with how it did, if anything is."""
    report.inputs += 1
    peak, held = _peak(), held_bytes()
    begun = time.process_time()
    what = "read"
    try:
        target.read(data)
    except target.errors as error:
        what = type(error).__name__
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Finding(target.name, f"{type(error).__name__}: {str(error)[:300]}", data)
    took = time.process_time() - begun
    report.outcomes[target.name, what] += 1
    report.slowest = max(report.slowest, (took, target.name))
    if took > _SECONDS:
        return Finding(target.name, f"{what}, after {took:.1f} s", data)
    # The peak says something of this input if it is a new one.
    grew = _peak() - held if _peak() > peak else 0
    report.largest = max(report.largest, (grew, target.name))
    if grew > _BYTES + len(data):
        return Finding(target.name, f"{what}, with {grew / 2**20:.0f} MiB", data)
    return None


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def held_bytes() -> int:
    """Return the bytes of memory that this process has now."""
    try:
        with _STATM.open("rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return _peak()
