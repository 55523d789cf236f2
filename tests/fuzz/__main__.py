"""Fuzz for as long as one likes: ``make fuzz SEED=1 INPUTS=1000000``."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import fuzz
from tests.fuzz.targets import all_targets


def main() -> int:
    """Fuzz, tell what came of it, and return 1 if there are findings."""
    options = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--inputs", type=int, default=1_000_000)
    options.add_argument("--only", default="", help="targets with this in their names")
    given = options.parse_args()
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        targets = [each for each in all_targets(Path(folder)) if given.only in each.name]
        report = fuzz(targets, given.inputs, given.seed)
    width = max(len(target.name) for target in targets)
    for target in targets:
        read, refused = report.read(target.name), report.refused(target.name)
        print(f"{target.name:<{width}}  {read:>9} read  {refused:>9} refused")
    print(
        f"{report.inputs} inputs in {time.process_time() - begun:.0f} s of one core; the slowest "
        f"took {report.slowest[0]:.2f} s ({report.slowest[1]}), the largest "
        f"{report.largest[0] / 2**20:.0f} MiB ({report.largest[1]})"
    )
    print(f"{len(report.findings)} findings")
    for finding in report.findings:
        print(finding)
    return 1 if report.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
