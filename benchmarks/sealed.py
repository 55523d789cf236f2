"""``python -m benchmarks.sealed``: what TLS, certificates and ``--e2e`` cost, round for round.

The same job in the clear, over TLS, with a certificate and rights for each process besides, with
``--e2e``, and over TLS with it: in turns, on a virtual host each of one broker. Ratios are of
rounds that were played one after the other, and medians of those.

Run: ``python -m benchmarks.sealed --cell 10x50MB --rounds 11``; some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.cells import Cell, parse_cell
from benchmarks.contenders import CERTIFIED_URL, CONTESTANTS, KEYS, TLS_URL, VHOSTS
from benchmarks.results import Outcome, Round, paired_ratio
from benchmarks.rounds import Harness
from flmq.broker.find import Broker, Origin
from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.node import PrivateNode
from flmq.broker.tls import NodeTls
from flmq.certs.folder import CertsFolder
from flmq.e2e.keys import Identity, save_identity
from flmq.provision.applying import carry_out, planned
from flmq.provision.passwords import Passwords
from flmq.provision.reading import read_provision

_PAIRS = (
    ("flmq-e2e", "flmq", 1.10),
    ("flmq-tls", "flmq", None),
    ("flmq-tls-certified", "flmq-tls", 1.03),
    ("flmq-tls-e2e", "flmq-tls", None),
)
"""What is compared with what, and the most that a round may take of the other's time."""
_DAYS = 1
_VHOST = "flmq-tls-certified"


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
    tls = NodeTls(files.certificate, files.key, authority.certificate, client_certs=True)
    # Some come by certificate, and others by password.
    settings = {"ssl_options.fail_if_no_peer_cert": "false"}
    plugins = (MANAGEMENT_PLUGIN,)
    node = PrivateNode(folder / "node", tls=tls, settings=settings, plugins=plugins).start()
    try:
        for vhost in VHOSTS:
            node.management.add_vhost(vhost)
        os.environ[CERTIFIED_URL] = _certified(folder, certs, node, cell)
        os.environ[TLS_URL], os.environ[KEYS] = node.tls_url, str(folder / "keys")
        broker = Broker(node.url, node.shown_url, Origin.LOCAL, node=node)
        harness = Harness(broker, rounds, folder, lambda line: print(line, file=sys.stderr))
        names = list(VHOSTS)
        return {each.contestant: each for each in harness.play(cell, names)}
    finally:
        node.stop(timeout=5.0)


def _certified(folder: Path, certs: CertsFolder, node: PrivateNode, cell: Cell) -> str:
    """Provision a virtual host, and return its URL for ``{name}``, by that one's certificate."""
    clients = [str(number) for number in range(cell.clients)]
    for name in ("server", *clients):
        certs.client(name, _DAYS)
    file = folder / "federation.toml"
    file.write_text(
        f"""
[[site]]
name = "main"
url = "${{URL}}"
vhost = "{_VHOST}"
management_url = "{node.management.shown_url}"

[[client]]
ids = {json.dumps(clients)}
login = "certificate"

[[server]]
user = "server"
login = "certificate"
"""
    )
    passwords = Passwords(folder / "passwords")
    wanted = read_provision(file, {"URL": node.url})
    carry_out(planned(wanted, ["main"], passwords), passwords)
    of_clients = certs.path / "clients"
    return (
        f"amqps://{{name}}@localhost:{node.ports.amqps}/{_VHOST}?auth=external"
        f"&cafile={certs.authority.certificate}"
        f"&certfile={of_clients}/{{name}}.pem&keyfile={of_clients}/{{name}}.key"
    )


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
    lines = ["", "| | of a round's time | goal | of all CPU seconds |", "|---|---:|---:|---:|"]
    for one, other, goal in _PAIRS:
        mine, theirs = outcomes.get(one), outcomes.get(other)
        if mine is None or theirs is None or not (mine.rounds and theirs.rounds):
            continue
        cpu = median(_cpu(a) / _cpu(b) for a, b in zip(mine.rounds, theirs.rounds, strict=False))
        label = f"{CONTESTANTS[one].label} / {CONTESTANTS[other].label}"
        most = "" if goal is None else f"<= {goal:.2f}"
        lines.append(f"| {label} | {paired_ratio(mine, theirs):.3f} | {most} | {cpu:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
