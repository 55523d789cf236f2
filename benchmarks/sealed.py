"""``python -m benchmarks.sealed``: what ``--e2e`` and TLS cost, round for round.

The same job in the clear, over TLS, with ``--e2e``, and with both, in turns on one broker of its
own. Ratios are of rounds that were played one after the other, and medians of those.

Run: ``python -m benchmarks.sealed --cell 10x50MB --rounds 11``; some minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.cells import Cell, parse_cell
from benchmarks.contenders import CONTESTANTS, KEYS, TLS_URL
from benchmarks.results import Outcome, Round, paired_ratio
from benchmarks.rounds import Harness
from flmq.broker.find import Broker, Origin
from flmq.broker.node import PrivateNode
from flmq.broker.tls import NodeTls
from flmq.certs.folder import CertsFolder
from flmq.e2e.keys import Identity, save_identity

_PAIRS = (
    ("flmq-e2e", "flmq"),
    ("flmq-tls", "flmq"),
    ("flmq-tls-e2e", "flmq-tls"),
)
_DAYS = 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sealed", description=__doc__)
    parser.add_argument("--cell", type=parse_cell, default=parse_cell("10x50MB"))
    parser.add_argument("--rounds", type=int, default=7, help="of each, after a warm-up")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flmq-bench-") as folder:
        outcomes = _measure(Path(folder), options.cell, options.rounds)
    print(_table(outcomes))
    print(_ratios(outcomes))
    if any(each.failed for each in outcomes.values()):
        sys.exit(1)


def _measure(folder: Path, cell: Cell, rounds: int) -> dict[str, Outcome]:
    """Play a cell on a node of its own, with keys and certificates in ``folder``."""
    save_identity(Identity.new("server"), folder / "keys")
    for number in range(cell.clients):
        save_identity(Identity.new(str(number)), folder / "keys" / "clients")
    certs = CertsFolder(folder / "certs")
    authority = certs.init("flmq benchmark authority", _DAYS)
    files = certs.server(["localhost", "127.0.0.1"], _DAYS)
    tls = NodeTls(files.certificate, files.key, authority.certificate)
    node = PrivateNode(folder / "node", tls=tls).start()
    try:
        os.environ[TLS_URL], os.environ[KEYS] = node.tls_url, str(folder / "keys")
        broker = Broker(node.url, node.shown_url, Origin.LOCAL, node=node)
        harness = Harness(broker, rounds, folder, lambda line: print(line, file=sys.stderr))
        names = [name for name in CONTESTANTS if name in {each for pair in _PAIRS for each in pair}]
        return {each.contestant: each for each in harness.play(cell, names)}
    finally:
        node.stop(timeout=5.0)


def _cpu(one: Round) -> float:
    """Processor seconds of all: server, clients and broker."""
    return one.server_cpu + (one.clients_cpu or 0.0) + (one.broker_cpu or 0.0)


def _table(outcomes: dict[str, Outcome]) -> str:
    lines = [
        "| | round, s | CPU s: server | clients | broker | server's peak above idle, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, each in outcomes.items():
        label = CONTESTANTS[name].label
        if each.failed or not each.rounds:
            lines.append(f"| {label} | {each.failed} | | | | |")
            continue
        figures = (
            each.seconds,
            each.median(lambda one: one.server_cpu),
            each.median(lambda one: one.clients_cpu),
            each.median(lambda one: one.broker_cpu),
        )
        cells = " | ".join("-" if figure is None else f"{figure:.2f}" for figure in figures)
        lines.append(f"| {label} | {cells} | {(each.memory or 0) / 1e6:.0f} |")
    return "\n".join(lines)


def _ratios(outcomes: dict[str, Outcome]) -> str:
    lines = ["", "| | of a round's time | of all CPU seconds |", "|---|---:|---:|"]
    for one, other in _PAIRS:
        mine, theirs = outcomes.get(one), outcomes.get(other)
        if mine is None or theirs is None or not (mine.rounds and theirs.rounds):
            continue
        cpu = median(_cpu(a) / _cpu(b) for a, b in zip(mine.rounds, theirs.rounds, strict=False))
        label = f"{CONTESTANTS[one].label} / {CONTESTANTS[other].label}"
        lines.append(f"| {label} | {paired_ratio(mine, theirs):.3f} | {cpu:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
