"""``python -m benchmarks.declaring``: what it costs to declare the queues of many clients.

A private node each; a client's queue has two bindings. "in turn" waits for each client's, as
processes do that come one by one; "together" hands all to the transport at once, as one process of
many clients does. On RabbitMQ 4 a second node keeps what it knows in Khepri instead of Mnesia.

Run: ``python -m benchmarks.declaring [--queues N ...]``; FLMQ_RABBITMQ_SERVER names another broker.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

from benchmarks.meters import cpu_seconds, resident_memory
from flmq.broker.node import PrivateNode
from flmq.common.errors import BrokerRefusal
from flmq.transport import client_topology, federation_topology, open_transport, union

_KHEPRI = "khepri_db"
_IN_TURN_AT_MOST = 1_000


def main() -> None:
    """Measure, and print a line of a table each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.declaring", description=__doc__)
    parser.add_argument("--queues", type=int, nargs="+", default=[1_000, 10_000])
    options = parser.parse_args()
    print("| RabbitMQ | queues | how | s in all | ms a queue | broker CPU ms a queue | MB |")
    print("|---|---:|---|---:|---:|---:|---:|", flush=True)
    for khepri in (False, True):
        for line in _measure(options.queues, khepri):
            print(line, flush=True)


def _measure(counts: Sequence[int], khepri: bool) -> Iterator[str]:
    for count in counts:
        for how in ("in turn", "together"):
            if how == "in turn" and count > _IN_TURN_AT_MOST:
                continue
            with PrivateNode() as node:
                store = _store(node, khepri)
                if store is None:
                    return
                yield _line(node, f"{_version(node)}, {store}", count, how)


def _store(node: PrivateNode, khepri: bool) -> str | None:
    """Where the node keeps queues and bindings; None: it cannot do what is wanted."""
    if not khepri:
        return "Mnesia"
    for words in ((_KHEPRI,), ("--opt-in", _KHEPRI), ("--experimental", _KHEPRI)):
        try:
            node.ctl("enable_feature_flag", *words)
        except BrokerRefusal:
            continue
        return "Khepri"
    return None


def _version(node: PrivateNode) -> str:
    return node.evaluate("rabbit_misc:version().").strip('"')


def _line(node: PrivateNode, broker: str, count: int, how: str) -> str:
    pid = node.pid
    assert pid is not None
    topologies = [client_topology(f"c{number:06d}") for number in range(count)]
    with open_transport(node.url, name="declaring") as transport:
        transport.declare(federation_topology())
        before, started = _figures(pid), time.perf_counter()
        if how == "together":
            transport.declare(union(topologies))
        else:
            for topology in topologies:
                transport.declare(topology)
        seconds = time.perf_counter() - started
        busy, grown = (now - then for now, then in zip(_figures(pid), before, strict=True))
    return (
        f"| {broker} | {count:,} | {how} | {seconds:.1f} | {1000 * seconds / count:.2f} "
        f"| {1000 * busy / count:.2f} | {grown / 1e6:.0f} |"
    )


def _figures(pid: int) -> tuple[float, float]:
    """CPU seconds so far, and resident bytes."""
    cpu, memory = cpu_seconds([pid]), resident_memory(pid)
    assert cpu is not None
    assert memory is not None
    return cpu, memory


if __name__ == "__main__":
    main()
