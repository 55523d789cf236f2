"""``python -m benchmarks.provision``: what it takes to provision the clients of a federation.

A private node each. "import" is ``rabbitmqctl import_definitions`` of the file that ``flmq
provision --definitions`` writes; "live" is ``flmq provision`` through the management API; then what
it takes to see that nothing is to be changed, and to give everybody a new password.

Run: ``python -m benchmarks.provision [--clients N ...]``; FLMQ_RABBITMQ_SERVER names the broker.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.meters import cpu_seconds, resident_memory
from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.node import PrivateNode
from flmq.common.files import make_folder
from flmq.provision.applying import carry_out, planned, rotate
from flmq.provision.importing import importable
from flmq.provision.parties import Provision
from flmq.provision.passwords import Passwords
from flmq.provision.reading import read_provision

_FILE = """
[[site]]
name = "main"
url = "${{URL}}"
management_url = "${{API}}"
vhost = "bench"

[[client]]
ids = "site-a.host-{{1..{count}}}"

[[server]]
user = "server"
"""
_PATIENCE = 3600.0


def main() -> None:
    """Measure, and print a line of a table each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.provision", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[200, 10_000])
    options = parser.parse_args()
    print("| clients | what | s | broker CPU s | broker MB |")
    print("|---:|---|---:|---:|---:|", flush=True)
    for count in options.clients:
        for measure in (_imported, _live):
            with (
                PrivateNode(plugins=(MANAGEMENT_PLUGIN,)) as node,
                tempfile.TemporaryDirectory(prefix="flmq-bench-") as folder,
            ):
                for line in measure(node, Path(folder), count):
                    print(f"| {count} | {line} |", flush=True)


def _imported(node: PrivateNode, folder: Path, count: int) -> Iterator[str]:
    wanted, passwords = _wanted(node, folder, count)
    file = folder / "main.json"

    def write() -> None:
        file.write_text(json.dumps(importable(wanted, "main", passwords)))

    yield _timed(node, "file of definitions written", write)
    yield _timed(
        node,
        "import by rabbitmqctl",
        lambda: node.ctl("import_definitions", str(file), timeout=_PATIENCE),
    )


def _live(node: PrivateNode, folder: Path, count: int) -> Iterator[str]:
    wanted, passwords = _wanted(node, folder, count)

    def apply() -> None:
        carry_out(planned(wanted, ["main"], passwords), passwords)

    def check() -> None:
        if not planned(wanted, ["main"], passwords).is_empty:
            raise SystemExit("what was provisioned differs from the file")

    yield _timed(node, "live", apply)
    yield _timed(node, "check that nothing differs", check)
    yield _timed(node, "rotate all", lambda: rotate(wanted, None, passwords))


def _wanted(node: PrivateNode, folder: Path, count: int) -> tuple[Provision, Passwords]:
    make_folder(folder)
    file = folder / "federation.toml"
    file.write_text(_FILE.format(count=count))
    api = node.management
    assert api is not None
    environ = {
        "URL": node.url,
        "API": f"http://{api.user}:{api.password}@{api.host}:{api.port}",
    }
    return read_provision(file, environ), Passwords(folder / "passwords")


def _timed(node: PrivateNode, what: str, run: Callable[[], object]) -> str:
    pids = [node.pid] if node.pid else []
    began, before = time.perf_counter(), cpu_seconds(pids)
    run()
    seconds, after = time.perf_counter() - began, cpu_seconds(pids)
    spent = "-" if before is None or after is None else f"{after - before:.1f}"
    memory = resident_memory(pids[0]) if pids else None
    return f"{what} | {seconds:.1f} | {spent} | {'-' if memory is None else memory // 10**6}"


if __name__ == "__main__":
    main()
