"""``python -m benchmarks.links``: what crosses the link between a site and the hub in a round.

The hub's broker with the server, and a site's broker with all clients, each in a network namespace
where the machine allows it. Bytes are those of the wire's interface, with the headers of every
packet: down until the last client has its model, up over the whole round. Without namespaces
links are proxies, and bytes those of TCP. Bits are compared over all lines.

Run: ``python -m benchmarks links``, or ``python -m benchmarks.links --help``; some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.speaking import Speaking
from tests.sites.networks import Traffic
from tests.sites.stage import HUB, Sites

__all__ = ["SITE", "Line", "measure", "model_down"]

_FLMQ = str(Path(sys.executable).parent / "flmq")
SITE = "eu"
_CLIENTS = (5, 20, 40)
_PATIENCE = 600.0
"""Seconds to wait for a process to say something."""
_QUIET = 1.0
"""Seconds without more than a heartbeat, after which a link has nothing more to carry."""
_CHATTER = 4000


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: medians over rounds."""

    clients: int
    aggregated: bool
    """Whether the site has an aggregator."""
    model_bytes: int
    down: float
    """Bytes a round."""
    up: float
    seconds: float
    digest: str
    """Of the last model."""


def measure(
    sites: Sites,
    clients: int,
    model_bytes: int,
    *,
    rounds: int = 3,
    aggregated: bool = False,
    rate: float | None = None,
) -> Line:
    """Play rounds of ``clients`` behind one link, which lets ``rate`` bytes/s through."""
    sites.set()
    link = sites.link(SITE)
    down, up, seconds = [], [], []
    digest = ""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="flmq-links-") as folder,
            _crew(sites, Path(folder), clients, model_bytes, rounds, aggregated) as crew,
        ):
            server, workers = crew
            link.slow(rate)
            for _ in range(rounds):
                server.until("ready")
                before = _when_quiet(sites)
                server.go()
                workers.until("training")
                down.append(link.bytes().since(before).down)
                workers.go()
                said = server.until("aggregated")
                up.append(_when_quiet(sites).since(before).up)
                seconds.append(said["seconds"])
                digest = said["digest"]
                server.go()
    finally:
        link.slow(None)
        sites.clear()
    return Line(clients, aggregated, model_bytes, median(down), median(up), median(seconds), digest)


def model_down(sites: Sites, clients: int, model_bytes: int) -> int:
    """Return the bytes that come until ``clients`` behind one link have a model; then stop."""
    sites.set()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="flmq-links-") as folder,
            _crew(sites, Path(folder), clients, model_bytes, 1, False) as (server, workers),
        ):
            server.until("ready")
            before = _when_quiet(sites)
            server.go()
            workers.until("training")
            return sites.link(SITE).bytes().since(before).down
    finally:
        sites.clear()


@contextlib.contextmanager
def _crew(
    sites: Sites, folder: Path, clients: int, model_bytes: int, rounds: int, aggregated: bool
) -> Iterator[tuple[Speaking, Speaking]]:
    """Start a run's processes at their sites; end them."""
    module = [sys.executable, "-m", "benchmarks.linked"]
    of_server = (f"--rounds={rounds}", f"--model-bytes={model_bytes}", f"--runs={folder}/runs")
    with contextlib.ExitStack() as stack:

        def start(site: str, name: str, argv: Sequence[str]) -> Speaking:
            command, log = sites.command(site, argv), folder / f"{name}.log"
            return stack.enter_context(Speaking(command, log, patience=_PATIENCE))

        if aggregated:
            state = f"--state-dir={folder}/aggregator"
            start(SITE, "aggregator", [_FLMQ, "aggregate", f"--site={SITE}", state])
        workers = start(SITE, "clients", [*module, "clients", f"--clients={clients}"])
        server = start(HUB, "server", [*module, "server", f"--clients={clients}", *of_server])
        yield server, workers


def _when_quiet(sites: Sites) -> Traffic:
    """What the link has carried, once it carries no more than signs of life."""
    before = sites.link(SITE).bytes()
    while True:
        time.sleep(_QUIET)
        now = sites.link(SITE).bytes()
        gone = now.since(before)
        if gone.down + gone.up < _CHATTER * _QUIET:
            return now
        before = now


def table(lines: Sequence[Line], rate: float) -> str:
    """Return the lines in Markdown."""
    text = [
        (
            "| clients behind the link | aggregator | model bytes down | up "
            f"| s a round, {8 * rate / 1e6:g} Mbit/s | final model |"
        ),
        "|---:|---|---:|---:|---:|---|",
    ]
    for line in lines:
        size = line.model_bytes
        text.append(
            f"| {line.clients} | {'yes' if line.aggregated else 'no'} | {line.down / size:.3f} x "
            f"| {line.up / size:.2f} x | {line.seconds:.1f} | `{line.digest[:12]}` |"
        )
    return "\n".join(text)


def main() -> None:
    """Measure what the options say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=list(_CLIENTS))
    parser.add_argument("--model-bytes", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mbit", type=float, default=200.0, help="of the link (default: 200)")
    parser.add_argument(
        "--aggregator", choices=("no", "yes", "both"), default="both", help="(default: both)"
    )
    options = parser.parse_args()
    wanted = {"no": [False], "yes": [True], "both": [False, True]}[options.aggregator]
    rate = options.mbit * 1e6 / 8
    lines = []
    with Sites({HUB: None, SITE: HUB}) as sites:
        for aggregated in wanted:
            for clients in options.clients:
                lines.append(
                    measure(
                        sites,
                        clients,
                        options.model_bytes,
                        rounds=options.rounds,
                        aggregated=aggregated,
                        rate=rate,
                    )
                )
                print(lines[-1], file=sys.stderr, flush=True)
        how = sites.how
    print(table(lines, rate))
    print(f"\nA model of {options.model_bytes / 1e6:g} MB; {how}; {os.cpu_count()} cores.")


if __name__ == "__main__":
    main()
