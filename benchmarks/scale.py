"""``python -m benchmarks.scale``: what a client costs where there are thousands of them.

One server, one process that is all clients, and a private broker, on whatever cores the machine
has. Cells: ``round`` plays rounds of so many clients; ``resume`` kills the server when half of a
round's replies are in, and starts it again; ``idle`` fills the broker with the queues of clients
that are away, and plays a round of those that are there.

Run: ``python -m benchmarks scale``, or ``python -m benchmarks.scale --help``; some minutes each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.meters import cpu_seconds, peak_memory, resident_memory
from benchmarks.speaking import Speaking, SpeakingFailed
from flmq.broker.node import PrivateNode
from flmq.common.urls import parse_broker_url
from flmq.transport import client_topology, federation_topology

_PATIENCE = 900.0
"""Seconds to wait for a process to say something."""


class _Bench:
    """A broker, a folder, and the processes of a cell."""

    def __init__(self, node: PrivateNode, folder: Path, options: argparse.Namespace) -> None:
        self._node = node
        self._folder = folder
        self._options = options

    def clients(self, count: int) -> Speaking:
        return self._start("clients", f"--clients={count}")

    def server(self, count: int, rounds: int, runs: str, *more: str) -> Speaking:
        return self._start(
            "server",
            f"--clients={count}",
            f"--rounds={rounds}",
            f"--numbers={self._options.model_bytes // 4}",
            f"--runs={self._folder / runs}",
            *more,
        )

    def play(self, count: int, rounds: int) -> dict[str, float]:
        """Play rounds, the first of which is a warm-up, and return what one took."""
        with (
            self.clients(count) as clients,
            self.server(count, rounds + 1, f"round-{count}-{time.time():.0f}") as server,
        ):
            first = server.until("opened")
            played = []
            begun = server.until("closed")
            for _ in range(rounds):
                opened = server.until("opened")
                before = self._cpu(clients)
                closed = server.until("closed")
                _all_accepted(server, closed, count)
                after = self._cpu(clients)
                played.append(
                    {
                        "seconds": closed["at"] - opened["at"],
                        "server": closed["cpu"] - opened["cpu"],
                        "clients": after[0] - before[0],
                        "broker": after[1] - before[1],
                        "again": closed["duplicate"],
                    }
                )
            found = {name: median(each[name] for each in played) for name in played[0]}
            found |= {
                "start": first["at"] - server.started,
                "first": begun["at"] - first["at"],
                "server rss": float(peak_memory(server.pid) or 0),
                "clients rss": float(peak_memory(clients.pid) or 0),
                "broker rss": float(resident_memory(self._node.pid or 0) or 0),
            }
            server.wait()
            return found

    def resume(self, count: int) -> dict[str, float]:
        """Kill the server in the middle of its second round, and start it again."""
        with self.clients(count):
            half = count // 2
            with self.server(count, 2, "resume", f"--die-after={half}") as server:
                server.until("closed")
                server.wait()
            # Some tens were recorded that had not been counted yet; so many more are new.
            going_on = f"--going-on-at={half + half // 10}"
            with self.server(count, 2, "resume", going_on) as server:
                going = server.until("going on")
                closed = server.until("closed")
                _all_accepted(server, closed, count)
                return {
                    "going on": going["at"] - server.started,
                    "closed": closed["at"] - server.started,
                    "cpu": going["cpu"],
                    "server rss": float(peak_memory(server.pid) or 0),
                }

    def fill(self, count: int) -> float:
        """Import the queues of so many clients that are away; return the seconds it took."""
        begun = time.monotonic()
        path = self._folder / "definitions.json"
        path.write_text(json.dumps(_definitions(count, parse_broker_url(self._node.url).vhost)))
        self._node.ctl("import_definitions", str(path), timeout=3600)
        return time.monotonic() - begun

    def _start(self, what: str, *arguments: str) -> Speaking:
        command = [sys.executable, "-m", "benchmarks.scaled", what, *arguments]
        env = {"FLMQ_BROKER_URL": self._node.url}
        return Speaking(command, self._folder / "log", patience=_PATIENCE, env=env)

    def _cpu(self, clients: Speaking) -> tuple[float, float]:
        broker = self._node.pid
        return (
            cpu_seconds([clients.pid]) or 0.0,
            cpu_seconds([broker] if broker is not None else []) or 0.0,
        )


def _all_accepted(server: Speaking, closed: dict[str, Any], count: int) -> None:
    if closed["accepted"] != count:
        server.fail(f"{closed['accepted']} of {count} replies counted")


def _definitions(count: int, vhost: str) -> dict[str, list[dict[str, Any]]]:
    """Return as RabbitMQ's definitions what so many clients declare, who then went away."""
    topology = federation_topology()
    queues, bindings = list(topology.queues), list(topology.bindings)
    for number in range(count):
        one = client_topology(f"idle{number:06d}")
        queues += one.queues
        bindings += one.bindings
    everywhere = {"vhost": vhost, "durable": True, "auto_delete": False}
    return {
        "exchanges": [
            {**everywhere, "name": e.name, "type": e.type.value, "internal": False, "arguments": {}}
            for e in topology.exchanges
        ],
        "queues": [
            {
                **everywhere,
                "name": queue.name,
                "arguments": {"x-queue-type": queue.type.value, **queue.arguments},
            }
            for queue in queues
        ],
        "bindings": [
            {
                "vhost": vhost,
                "source": binding.source,
                "destination": binding.destination,
                "destination_type": "exchange" if binding.to_exchange else "queue",
                "routing_key": binding.routing_key,
                "arguments": {},
            }
            for binding in bindings
        ],
    }


@contextlib.contextmanager
def _bench(options: argparse.Namespace) -> Iterator[_Bench]:
    """A broker of its own for each cell: queues of one would be there in the next."""
    with tempfile.TemporaryDirectory(prefix="flmq-scale-") as folder, PrivateNode() as node:
        try:
            yield _Bench(node, Path(folder), options)
        except SpeakingFailed as failed:
            sys.exit(str(failed))


def rounds(options: argparse.Namespace) -> Iterator[str]:
    """Yield the tables of rounds."""
    found = {}
    for count in options.clients:
        with _bench(options) as bench:
            found[count] = bench.play(count, options.rounds)
        _say(f"{count} clients: {found[count]}")
    yield "| clients | a round, s | replies/s | server, MB | clients, MB | broker, MB | twice |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for count, of in found.items():
        yield (
            f"| {count:,} | {of['seconds']:.2f} | {count / of['seconds']:.0f} "
            f"| {of['server rss'] / 1e6:.0f} | {of['clients rss'] / 1e6:.0f} "
            f"| {of['broker rss'] / 1e6:.0f} | {of['again']:.0f} |"
        )
    yield ""
    yield "| clients | a client, ms | server's CPU, ms | clients' CPU, ms | broker's CPU, ms |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    for count, of in found.items():
        each = [
            f"{of[name] / count * 1e3:.2f}" for name in ("seconds", "server", "clients", "broker")
        ]
        yield f"| {count:,} | {' | '.join(each)} |"
    if len(found) > 1:
        small, large = min(found), max(found)
        wall = found[large]["seconds"] / large / (found[small]["seconds"] / small)
        cpu = found[large]["server"] / large / (found[small]["server"] / small)
        yield ""
        yield (
            f"Time a client at {large:,} / at {small:,}: {wall:.2f} (goal 1.2); "
            f"the server's CPU: {cpu:.2f}."
        )


def resume(options: argparse.Namespace) -> Iterator[str]:
    """Yield the table of servers that are started again."""
    yield "| clients | recorded | to going on, s | server's CPU till then, s | round's end, s |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    count = max(options.clients)
    with _bench(options) as bench:
        of = bench.resume(count)
    _say(f"resume: {of}")
    yield (
        f"| {count:,} | {count // 2:,} | {of['going on']:.1f} | {of['cpu']:.1f} "
        f"| {of['closed']:.1f} |"
    )
    yield ""
    yield f"Going on after {of['going on']:.1f} s (goal 15)."


def idle(options: argparse.Namespace) -> Iterator[str]:
    """Yield the table of rounds beside idle queues."""
    yield "| idle queues | clients | server's start, s | a round, s | broker, MB | import, s |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    count, seconds, start = min(options.clients), [], 0.0
    for queues in (0, options.idle):
        with _bench(options) as bench:
            took = bench.fill(queues) if queues else 0.0
            of = bench.play(count, options.rounds)
        _say(f"{queues} idle queues: {of}")
        yield (
            f"| {queues:,} | {count:,} | {of['start']:.1f} | {of['seconds']:.2f} "
            f"| {of['broker rss'] / 1e6:.0f} | {took:.0f} |"
        )
        seconds.append(of["seconds"])
        start = of["start"]
    yield ""
    yield (
        f"A round beside {options.idle:,} idle queues / without: {seconds[1] / seconds[0]:.2f} "
        f"(goal 1.5); the server's start beside them: {start:.1f} s (goal 60)."
    )


def main() -> None:
    """Print a table for each cell."""
    cells = {
        "round": ("A round over a broker", rounds),
        "resume": ("A server that is killed in mid-round", resume),
        "idle": ("Beside clients that are away", idle),
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--cells", nargs="+", choices=cells, default=list(cells))
    parser.add_argument("--clients", nargs="+", type=int, default=[1_000, 10_000], metavar="N")
    parser.add_argument("--idle", type=int, default=100_000, metavar="N", help="idle queues")
    parser.add_argument("--rounds", type=int, default=3, help="after the warm-up (default: 3)")
    parser.add_argument("--model-bytes", type=int, default=10_000)
    options = parser.parse_args()
    for name in options.cells:
        title, lines = cells[name]
        print(f"\n### {title}\n")
        for line in lines(options):
            print(line, flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
