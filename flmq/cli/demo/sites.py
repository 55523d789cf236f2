"""``flmq demo-sites``: the digits over three sites, each with a broker; a link is cut, and mended.

Everything is on this machine: three private nodes of RabbitMQ, linked as docs/datacenters.md has
it, a server at the hub, and clients that know their own site's broker only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flmq.broker.layout import FEDERATION_PLUGINS
from flmq.broker.node import PrivateNode
from flmq.broker.polling import poll_until
from flmq.broker.ports import LOOPBACK, free_ports
from flmq.cli.children import Children
from flmq.cli.demo.demo import (
    DemoCommand,
    DemoPlan,
    Progress,
    client_argv,
    run_in_memory,
    server_argv,
    status_of_server,
)
from flmq.cli.demo.digits import DigitsSettings
from flmq.cli.demo.relay import Relay
from flmq.cli.demo.stage import SERVER
from flmq.cli.exit_codes import ExitCode
from flmq.cli.folders import writing_run
from flmq.cli.model import MODEL, model_digest
from flmq.cli.options import RunsDir, with_options
from flmq.cli.stopping import PART_OF_DEMO, in_order, typed_again
from flmq.common.environment import BROKER_URL
from flmq.common.errors import BrokerNotFound
from flmq.common.files import make_folder
from flmq.common.model_files import load_parameters
from flmq.common.urls import parse_broker_url
from flmq.datasets.digits import check_data
from flmq.sites.brokers import carry_out, planned
from flmq.sites.federation import Federation
from flmq.sites.links import links_of
from flmq.sites.reading import read_federation

__all__ = ["demo_sites"]

_HUB, _CUT, _OTHER = "main", "eu-west", "ap-south"
_SITES = (_HUB, _CUT, _OTHER)
_PATIENCE = 120.0
_LOOK_EVERY = 0.02


@dataclass(frozen=True, slots=True)
class _Stage:
    """The brokers, the links between them, and what a child's environment says of them."""

    federation: Federation
    file: Path
    urls: Mapping[str, str]
    relays: tuple[Relay, ...]
    """The link between the hub and the site that is cut off, in both directions."""
    environ: Mapping[str, str]


@with_options
def demo_sites(
    settings: DigitsSettings,
    rounds: Annotated[int, typer.Option(help="Rounds of training.", min=3)] = 6,
    cut: Annotated[
        float, typer.Option(help="Seconds for which a site's link is cut.", min=0.0)
    ] = 10.0,
    job: Annotated[str | None, typer.Option(help="Name of the job and its folder.")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train on the digits at two sites with a hub, cut a site off in mid-run, compare the bits."""
    check_data()
    name = job or f"sites-{datetime.now():%Y%m%d-%H%M%S}"
    plan = DemoPlan(rounds=rounds, round_timeout=_PATIENCE + cut)
    command = DemoCommand(settings, plan, None, name, runs_dir)
    with in_order(lambda: f"nothing is left running; begin anew with: {typed_again()}"):
        raise typer.Exit(_run(command, cut, Console(highlight=False, soft_wrap=True)))


def _run(command: DemoCommand, cut: float, console: Console) -> int:
    with writing_run(command.folder):
        make_folder(command.folder / "clients")
    console.print(f"starting three brokers: {', '.join(_SITES)} ...")
    with ExitStack() as stack:
        stage = stack.enter_context(_stage(command.folder))
        _link(stage.federation, console)
        console.print(f"in round 3, {_CUT} is cut off for {cut:g} s")
        status = _train(command, stage, cut)
    if status != ExitCode.OK:
        return status
    console.print("the same federation, flat: one process, no links")
    flat = replace(command, job=f"{command.job}-flat", plan=replace(command.plan, in_memory=True))
    run_in_memory(flat, console)
    digests = [
        model_digest(load_parameters(each.folder / f"{MODEL}.npz")) for each in (command, flat)
    ]
    for where, digest in zip(("three sites", "flat"), digests, strict=True):
        console.print(f"model sha256: {digest} ({where})")
    same = digests[0] == digests[1]
    console.print("the same bits" if same else "[bold]not the same bits[/]")
    return ExitCode.OK if same else ExitCode.CHECK_FAILED


@contextmanager
def _stage(folder: Path) -> Iterator[_Stage]:
    with ExitStack() as stack:
        nodes = {name: PrivateNode(plugins=FEDERATION_PLUGINS) for name in _SITES}
        for node in nodes.values():
            stack.callback(node.stop)
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(PrivateNode.start, nodes.values()))
        urls = {name: node.url for name, node in nodes.items()}
        up, down = (stack.enter_context(_relay(nodes[name])) for name in (_CUT, _HUB))
        environ = {
            **{_variable(name): url for name, url in urls.items()},
            f"{_variable(_CUT)}_FROM_HUB": _through(up, urls[_CUT]),
            f"{_variable(_HUB)}_FROM_SITE": _through(down, urls[_HUB]),
        }
        file = folder / "federation.toml"
        file.write_text(_file(nodes), encoding="utf-8")
        yield _Stage(read_federation(file, environ), file, urls, (up, down), environ)


def _relay(node: PrivateNode) -> Relay:
    return Relay(free_ports().amqp, LOOPBACK, node.ports.amqp)


def _through(relay: Relay, url: str) -> str:
    return replace(parse_broker_url(url), port=relay.port).full


def _variable(site: str) -> str:
    return f"{site.upper().replace('-', '_')}_URL"


def _file(nodes: Mapping[str, PrivateNode]) -> str:
    """Return the federation's file: the site that is cut off is linked through relays."""
    tables = []
    for name, node in nodes.items():
        keys = {
            "name": name,
            "url": f"${{{_variable(name)}}}",
            "management_url": node.management.shown_url,
        }
        if name != _HUB:
            keys["parent"] = _HUB
        if name == _CUT:
            keys["link_url"] = f"${{{_variable(_CUT)}_FROM_HUB}}"
            keys["parent_url"] = f"${{{_variable(_HUB)}_FROM_SITE}}"
        lines = (f'{key} = "{value}"' for key, value in keys.items())
        tables.append("\n".join(("[[site]]", *lines, "")))
    return "\n".join(tables)


def _link(federation: Federation, console: Console) -> None:
    """Apply the file, wait until the links run, and show them.

    Raises:
        BrokerNotFound: they do not come up.
    """
    changes = planned(federation, _SITES)
    carry_out(federation, changes)
    console.print(f"flmq site apply: {len(changes)} changes")
    if not poll_until(lambda: _all_run(federation), _PATIENCE, every=0.5):
        raise BrokerNotFound(f"links do not come up: {', '.join(map(str, links_of(federation)))}")
    for link in links_of(federation):
        console.print(f"flmq site check: {link}")


def _all_run(federation: Federation) -> bool:
    return all(link.running for link in links_of(federation))


def _train(command: DemoCommand, stage: _Stage, cut: float) -> int:
    """Run server and clients, and cut the link in the third round; return the server's status."""
    more = {PART_OF_DEMO: "1", "FLMQ_HEARTBEAT": "1", **stage.environ}
    at = {name: Children({BROKER_URL: stage.urls[name], **more}) for name in _SITES}
    try:
        for number, client_id in enumerate(command.clients):
            site = (_CUT, _OTHER)[number % 2]
            log = command.folder / "clients" / f"{client_id}.log"
            argv = [*client_argv(command, client_id), f"--site={site}"]
            at[site].start(client_id, argv, log)
        hub = at[_HUB]
        hub.start(SERVER, [*server_argv(command), f"--federation={stage.file}"])
        _cut_and_mend(hub, command, stage, cut)
        for name in (_CUT, _OTHER):
            at[name].wait_all(timeout=10.0)
    finally:
        for children in at.values():
            children.end()
    return status_of_server(hub)


def _cut_and_mend(
    hub: Children,
    command: DemoCommand,
    stage: _Stage,
    cut: float,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait for the server's end; meanwhile do to the link what was announced."""
    progress = Progress(command.folder)
    mend_at = None
    done = False
    while hub.running(SERVER):
        if not done and progress.rounds_done() >= 2:
            for relay in stage.relays:
                relay.cut()
            mend_at, done = clock() + cut, True
        if mend_at is not None and clock() >= mend_at:
            for relay in stage.relays:
                relay.mend()
            mend_at = None
        hub.wait([SERVER], _LOOK_EVERY)
    progress.close()
