"""Start clients: one worker on a broker, until its job ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from flmq.client.client_ids import client_ids_of, clients_of, some_of
from flmq.client.factory import ClientSource, checked_source
from flmq.client.options import WorkerOptions, check_properties
from flmq.client.secure.options import ClientKeyOptions
from flmq.client.serving.signs import not_consuming
from flmq.client.serving.worker import Worker
from flmq.client.typing import ClientFn, ClientLike
from flmq.common.environment import broker_url
from flmq.common.errors import UsageError
from flmq.common.logger import logger, show_on_console
from flmq.common.names import check_client_id, make_client_id
from flmq.common.typing import Scalar
from flmq.common.urls import redact_url
from flmq.observe.bus import WorkerBus
from flmq.observe.events import ConnectionChanged, WorkerObserver
from flmq.observe.vitals import Vitals
from flmq.transport import (
    DEFAULT_SITE,
    ConnectionEvent,
    ConnectionState,
    StateListener,
    open_transport,
)

__all__ = [
    "InvalidClientArguments",
    "run_client",
    "run_clients",
    "start_client",
    "start_numpy_client",
    "threads_for",
]


class InvalidClientArguments(UsageError):
    """The arguments of `start_client` contradict each other or are not supported."""


def start_client(
    *,
    server_address: str | None = None,
    client_fn: ClientFn | None = None,
    client: ClientLike | None = None,
    grpc_max_message_length: int | None = None,
    root_certificates: bytes | str | None = None,
    insecure: bool | None = None,
    transport: str | None = None,
    authentication_keys: object | None = None,
    max_retries: int | None = None,
    max_wait_time: float | None = None,
    client_id: str | None = None,
    client_ids: Sequence[str] | str | int | None = None,
    concurrency: int | None = None,
    properties: Mapping[str, Scalar] | None = None,
    site: str = DEFAULT_SITE,
    state_dir: Path | str | None = None,
    e2e: bool = False,
    key: Path | str | None = None,
    server_key: Path | str | None = None,
    roster: Path | str | None = None,
    observers: Sequence[WorkerObserver] | WorkerBus = (),
) -> None:
    """Serve a job over RabbitMQ as a client. Blocks until the first job it serves ends.

    Args:
        server_address: URL of the broker, ``amqp://user:password@host:port/vhost`` or ``amqps``;
            None to use the environment variable ``FLMQ_BROKER_URL``.
        client_fn: creates the client, given a `ClientContext`.
        client: the client itself, in place of ``client_fn``.
        grpc_max_message_length: accepted for compatibility with Flower, and ignored; likewise
            ``insecure``, ``transport``, ``max_retries`` and ``max_wait_time``: a worker waits for
            its broker.
        root_certificates: not supported; TLS is configured in the URL.
        insecure: see ``grpc_max_message_length``.
        transport: see ``grpc_max_message_length``.
        authentication_keys: not supported; the broker authenticates, by the URL's credentials.
        max_retries: see ``grpc_max_message_length``.
        max_wait_time: see ``grpc_max_message_length``.
        client_id: must stay the same over restarts: tasks wait for it while the client is away.
            None to make one from host and process, which is logged.
        client_ids: serve many clients, in place of ``client_id``: a list of ids, the path of a
            file of them, a pattern such as ``"site-a-{0..999}"``, or a number. The context of each
            has ``partition-id`` and ``num-partitions`` in its properties, as in a simulation.
        concurrency: tasks done at a time, one of each client, on threads; None for 1 of a single
            client, and one per processor, at least 2, of many.
        properties: the client's properties; the criteria of strategies see them.
        site: the datacenter; "main" if there is only one.
        state_dir: a folder for durable state, with a folder for each client id in it.
        e2e: serve only jobs whose server signs and seals what it says, for a broker that is not
            trusted (docs/e2e.md); needs ``key`` and ``server_key``.
        key: with ``e2e``, the file of this client's private key, or the folder of many clients'.
            Its name is the client's id, if no other is given.
        server_key: with ``e2e``, the file of the server's public key, or a folder of several.
        roster: with ``e2e``, the public keys of all clients that may take part, if not the server
            alone is to say that.
        observers: called with each event of the worker (`flmq.observe.events`); a `WorkerBus`,
            which is closed at the end, lets more be attached meanwhile.

    Raises:
        UsageError: arguments contradict each other or are invalid.
        ClientFolderNotWritable: ``state_dir`` cannot be created or written.
        ClientIdInUse: another live process has this client id.
        BrokerError: the broker refuses, or cannot be reached at the start.
    """
    show_on_console()
    if (client_fn is None) == (client is None):
        raise InvalidClientArguments(
            "give client=... or client_fn=..., one of the two: "
            "start_client(server_address=url, client=MyClient().to_client())"
        )
    if root_certificates is not None or authentication_keys is not None:
        raise InvalidClientArguments(
            "certificates and keys of this form are for Flower's own server; with flmq the broker "
            "checks who you are: give an amqps:// URL with ?cafile=... (and certfile, keyfile); "
            "keys between this client and its server are e2e=True, key=... and server_key=..."
        )
    if client_id is not None and client_ids is not None:
        raise InvalidClientArguments("give client_id=... or client_ids=..., one of the two")
    key_options = ClientKeyOptions(e2e, _path(key), _path(server_key), _path(roster))
    if client_id is None and client_ids is None:
        client_id = key_options.name()
    if client_id is None and client_ids is None:
        client_id = make_client_id()
        logger.info(
            "client id %s (made for this process; give client_id=... one that stays, so that "
            "tasks can wait for a restart)",
            client_id,
        )
    source: ClientSource | None = client if client_fn is None else client_fn
    assert source is not None
    clients: Mapping[str, Mapping[str, Scalar]]
    if client_ids is not None:
        clients = clients_of(client_ids_of(client_ids), properties or {})
    else:
        clients = {check_client_id(client_id or ""): properties or {}}
    run_clients(
        broker_url(server_address),
        source,
        clients,
        WorkerOptions(
            site=site,
            state_dir=_path(state_dir),
            once=True,
            keys=key_options.load(clients),
            observers=observers,
            threads=threads_for(len(clients)) if concurrency is None else concurrency,
        ),
    )


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def start_numpy_client(*, server_address: str | None = None, client: ClientLike) -> None:
    """Serve a job as a `NumPyClient`: Flower's older name for `start_client`."""
    start_client(server_address=server_address, client=client)


def run_client(
    url: str,
    source: ClientSource,
    client_id: str,
    properties: Mapping[str, Scalar],
    options: WorkerOptions,
) -> None:
    """Run a worker for one client id; see `run_clients`."""
    run_clients(url, source, {client_id: properties}, options)


def threads_for(clients: int, processes: int = 1) -> int:
    """Return how many tasks one of ``processes`` does at a time, of so many clients in all.

    One per processor, but no fewer than two: one that takes long must not hold up the others.
    """
    return 1 if clients == 1 else max(2, (os.cpu_count() or 1) // processes)


def run_clients(
    url: str,
    source: ClientSource,
    clients: Mapping[str, Mapping[str, Scalar]],
    options: WorkerOptions,
    serving: Callable[[Worker], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Run a worker over the RabbitMQ at ``url`` until stopped (with ``once``: one job). Blocks.

    ``clients`` maps the ids of the clients that it serves to their properties. Each has a queue,
    a context, and a folder below ``options.state_dir`` of its own; all share three connections and
    one cache of models, and ``options.threads`` tasks are done at a time, one of each client.
    ``serving`` is entered with the worker while it runs: whoever ends it from outside knows it so.

    Raises:
        UsageError: something given is not valid.
        ClientFolderNotWritable: a client's folder cannot be created or written.
        ClientIdInUse: another live process serves one of the ids, and we are not a standby.
        BrokerError: the broker refuses, or cannot be reached at the start.
    """
    if not clients:
        raise InvalidClientArguments("there is no client to serve: give one or more")
    for client_id, properties in clients.items():
        options.check_folders(client_id)
        check_properties(client_id, properties)
    source = checked_source(source)
    who = some_of(list(clients))
    name = f"flmq client {who}"
    bus = WorkerBus.of(options.observers)
    options = replace(options, observers=bus)
    try:
        not_consuming(options.vitals)  # before it is connected, and would pass for ready
        told = _to_log_and(bus, options.vitals)
        with open_transport(url, name=name, listener=told) as transport:
            if len(clients) == 1:
                logger.info("client %s serves the jobs of %s", who, redact_url(url))
            else:
                at_a_time = f"{options.threads} tasks at a time"
                logger.info("%s serve the jobs of %s, %s", who, redact_url(url), at_a_time)
                if len(clients) >= _MANY:
                    logger.info("their queues are made first: some milliseconds each")
            _log_properties(clients)
            worker = Worker(transport, source, clients, options)
            with serving(worker):
                worker.run()
    finally:
        bus.close()
    logger.info("client %s: done" if len(clients) == 1 else "%s: done", who)


def _log_properties(clients: Mapping[str, Mapping[str, Scalar]]) -> None:
    """Log what the first client tells of itself."""
    client_id, properties = next(iter(clients.items()))
    if properties:
        # Text that looks like a number has become one: better to see it here than in a criterion.
        said = ", ".join(f"{key}={value!r}" for key, value in properties.items())
        logger.info("client %s tells of itself: %s", client_id, said)


def _to_log_and(bus: WorkerBus, vitals: Vitals) -> StateListener:
    def tell(event: ConnectionEvent) -> None:
        vitals.connection_changed(event)
        level = _LEVELS.get(event.state, logging.WARNING)
        what = f"{event.role} connection".lstrip()
        logger.log(level, "%s %s %s", what, event.state.value, event.detail)
        bus.emit(ConnectionChanged(event.role, event.state.value, event.detail))

    return tell


_MANY = 1000
"""Clients whose queues take seconds to be made."""

_LEVELS = {ConnectionState.CONNECTED: logging.INFO, ConnectionState.CLOSED: logging.DEBUG}
