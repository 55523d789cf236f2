"""``flmq client``: a worker that serves every job of its virtual host, as one client or many."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import typer

from flmq.cli.client_processes import serve_in_processes
from flmq.cli.draining import Drain
from flmq.cli.load import load_client
from flmq.cli.monitoring import Monitoring
from flmq.cli.options import Broker, pairs, with_options
from flmq.cli.process import log_to_stderr
from flmq.cli.stopping import in_order, typed_again
from flmq.client.app import run_clients, threads_for
from flmq.client.client_ids import InvalidClientIds, Share, client_ids_of, clients_of
from flmq.client.factory import ClientSource
from flmq.client.options import WorkerOptions
from flmq.client.secure.options import ClientKeyOptions
from flmq.client.tasks.store import AckPolicy
from flmq.common.environment import broker_url
from flmq.common.logger import logger
from flmq.common.names import check_client_id, make_client_id
from flmq.common.typing import Scalar
from flmq.monitoring.role import Role

__all__ = ["client"]


@with_options
def client(
    app: Annotated[
        str,
        typer.Argument(
            help="The client, as module:name: a Client or NumPyClient, its class, or a function "
            "that makes one.",
            show_default=False,
        ),
    ],
    broker: Broker = None,
    client_id: Annotated[
        str | None,
        typer.Option(
            envvar="FLMQ_CLIENT_ID",
            help="Stable name of this client: tasks wait under it while it is away. Default: one "
            "made from host and process.",
        ),
    ] = None,
    client_ids: Annotated[
        str | None,
        typer.Option(
            envvar="FLMQ_CLIENT_IDS",
            help="Serve many clients: a file of their ids, one a line, # comments; a pattern such "
            "as site-a-{0..999}, or {000..999} to keep the zeros; or a number of clients, named "
            "after this host.",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=1000, help="Processes to divide these clients among.")
    ] = 1,
    share: Annotated[
        str | None,
        typer.Option(
            help="Serve only this part of the clients, as 3/20: on 20 machines with the same "
            "list, each another.",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            envvar="FLMQ_CONCURRENCY",
            help="Tasks that each process does at a time, one of each client, on threads. "
            "Default: 1 for one client; for many, one per processor, at least 2.",
            show_default=False,
        ),
    ] = None,
    prop: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            "-p",
            help="key=value that the client tells of itself; repeatable. A value that looks like a "
            "number or a bool is one, but for one in double quotes.",
        ),
    ] = None,
    *,
    options: WorkerOptions,
    key_options: ClientKeyOptions,
    monitoring: Monitoring,
) -> None:
    """Work for every job of the broker's virtual host until stopped, as one client or as many.

    Each client does one task at a time. With --client-ids, each also has the properties
    partition-id, its place in the list from 0 on, and num-partitions.
    """
    monitoring.begin()
    log_to_stderr(logging.INFO)
    url = broker_url(broker)
    properties: Mapping[str, Scalar] = pairs("--property", prop or [])
    if client_ids is None:
        if processes > 1 or share is not None:
            raise InvalidClientIds("--processes and --share divide many clients: give --client-ids")
        client_id = key_options.name() if client_id is None else client_id
        name = make_client_id() if client_id is None else check_client_id(client_id)
        if client_id is None:
            logger.info("client id %s (give --client-id one that stays)", name)
        clients: Mapping[str, Mapping[str, Scalar]] = {name: properties}
        options = replace(options, threads=concurrency or 1, keys=key_options.load(clients))
        drain = Drain(options.grace)
        with in_order(lambda: _goes_on(client_id, options), drain):
            _run(url, load_client(app), clients, options, monitoring, drain)
        return
    if client_id is not None:
        raise InvalidClientIds("give --client-id or --client-ids, one of the two")
    ids, part = client_ids_of(client_ids), Share() if share is None else Share.parse(share)
    clients = clients_of(ids, properties, part)
    if processes > len(clients):
        raise InvalidClientIds(f"{processes} processes for {len(clients)} clients: give fewer")
    threads = concurrency or threads_for(len(clients), processes)
    options = replace(options, threads=threads, keys=key_options.load(clients))
    source = load_client(app)  # before there are processes that would each say what is wrong
    drain = Drain(options.grace)
    with in_order(lambda: _many_go_on(options), drain):
        if processes > 1:
            monitoring.check_ports(processes)
            ports = [monitoring.port_of(position) for position in range(processes)]
            raise SystemExit(serve_in_processes(ports, ids, part, options.threads, options.grace))
        _run(url, source, clients, options, monitoring, drain)


def _run(
    url: str,
    source: ClientSource,
    clients: Mapping[str, Mapping[str, Scalar]],
    options: WorkerOptions,
    monitoring: Monitoring,
    drain: Drain,
) -> None:
    with monitoring.shown(Role.WORKER, options.vitals) as seen:
        run_clients(url, source, clients, replace(options, observers=seen.worker), drain.serving)


def _goes_on(client_id: str | None, options: WorkerOptions) -> str:
    """Return text on what happens to a stopped client's work, and how to resume it."""
    if client_id is None:
        return (
            "a task that it has not done waits in a queue that no other client reads, so its round "
            "ends at its deadline; give --client-id a name that stays, and the task waits for its "
            "return"
        )
    if _begins_anew(options):
        what = "a task that it has not done waits in its queue, and will be trained anew"
    else:
        what = f"{options.state_dir} keeps its tasks and what it has finished"
    return f"{what}. Go on with: {typed_again(f'--client-id={client_id}')}"


def _many_go_on(options: WorkerOptions) -> str:
    """Return the same text for many clients."""
    if _begins_anew(options):
        what = (
            "tasks that these clients have not done wait in their queues, and will be trained anew"
        )
    else:
        what = f"{options.state_dir} keeps their tasks and what they have finished"
    return f"{what}. Go on with: {typed_again()}"


def _begins_anew(options: WorkerOptions) -> bool:
    """Return whether tasks that a stopped client had are in its queue alone."""
    return options.state_dir is None or options.ack is AckPolicy.RESULT
