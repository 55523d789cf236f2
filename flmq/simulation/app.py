"""A whole federation in one process: server, clients and an in-memory broker between them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flmq.client.factory import ClientSource
from flmq.client.options import WorkerOptions
from flmq.client.worker import Worker
from flmq.common.errors import FlmqError, RunError, UsageError
from flmq.common.failure_text import named_error
from flmq.common.logger import logger, show_on_console
from flmq.common.typing import Scalar
from flmq.observe.bus import EventBus
from flmq.observe.events import Observer
from flmq.observe.run_log import RunLog
from flmq.server.client_manager import ClientManager
from flmq.server.components import ServerAppComponents
from flmq.server.history import History
from flmq.server.lifecycle.run import run_server
from flmq.server.options import RunOptions
from flmq.server.rhythm.callbacks import Callback, RoundEnd
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy.strategy import Strategy
from flmq.transport.memory import MemoryBroker, MemoryTransport

__all__ = ["InvalidSimulation", "SimulatedClientsFailed", "simulate", "start_simulation"]


class InvalidSimulation(UsageError):
    """The arguments of `start_simulation` contradict each other or are invalid."""


class SimulatedClientsFailed(RunError):
    """The threads of the simulated clients died: nobody is left to train."""

    def __init__(self, error: BaseException) -> None:
        """Name the error that ended them."""
        super().__init__(
            f"the simulated clients ended ({named_error(error)}): please report this with the log"
        )


def start_simulation(
    *,
    client_fn: ClientSource,
    num_clients: int | None = None,
    clients_ids: Sequence[str] | None = None,
    client_resources: Mapping[str, float] | None = None,
    server: Server | None = None,
    config: ServerConfig | None = None,
    strategy: Strategy | None = None,
    client_manager: ClientManager | None = None,
    ray_init_args: Mapping[str, Any] | None = None,
    keep_initialised: bool | None = None,
    job: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    observers: Sequence[Observer] | EventBus = (),
    callbacks: Sequence[Callback | RoundEnd] = (),
) -> History:
    """Run a federation of simulated clients, and return its history.

    A client is created for each task, as in Flower's simulation: keep what must last outside of it.
    The clients share this process, and so Python's GIL, which numpy and torch release while they
    compute.

    Args:
        client_fn: creates a client from a `ClientContext`, whose ``node_config`` has
            ``partition-id`` (0 to ``num_clients`` - 1) and ``num-partitions``.
        num_clients: number of clients; their ids are ``0``, ``1``, ...
        clients_ids: the clients' ids, in place of ``num_clients``.
        client_resources: accepted for compatibility with Flower, and ignored, as there is no Ray
            here; likewise ``ray_init_args`` and ``keep_initialised``.
        server: as in `start_server`; likewise ``config``, ``strategy``, ``client_manager``,
            ``job``, ``seed``, ``observers`` and ``callbacks``.
        config: see ``server``.
        strategy: see ``server``.
        client_manager: see ``server``.
        ray_init_args: see ``client_resources``.
        keep_initialised: see ``client_resources``.
        job: see ``server``.
        seed: see ``server``.
        threads: number of tasks run concurrently; None for one per processor.
        observers: see ``server``.
        callbacks: see ``server``.

    Raises:
        UsageError: arguments contradict each other or are invalid.
        RunError: the run cannot go on.
    """
    show_on_console()
    ids = _ids(num_clients, clients_ids)
    clients: dict[str, dict[str, Scalar]] = {
        client_id: {"partition-id": i, "num-partitions": len(ids)}
        for i, client_id in enumerate(ids)
    }
    parts = ServerAppComponents(server, config, strategy, client_manager, callbacks=callbacks)
    options = RunOptions(job=job, seed=seed, observers=observers)
    return simulate(client_fn, clients, parts, options, threads=threads, keep_clients=False)


def simulate(
    source: ClientSource,
    clients: Mapping[str, Mapping[str, Scalar]],
    parts: ServerAppComponents,
    options: RunOptions,
    *,
    threads: int | None = None,
    keep_clients: bool,
) -> History:
    """Run ``clients`` (ids with their properties) and a server over an in-memory broker."""
    # Otherwise the first round would sample only among the clients that registered quickly.
    options = replace(options, clients=len(clients))
    broker = MemoryBroker()
    bus = EventBus.of(options.observers)
    bus.attach(RunLog())
    worker_options = WorkerOptions(
        threads=threads or os.cpu_count() or 1, keep_clients=keep_clients, max_deaths=0
    )
    try:
        with MemoryTransport(broker) as near, MemoryTransport(broker) as far:
            worker = Worker(near, source, clients, worker_options)
            ended: list[BaseException] = []
            thread = threading.Thread(target=_work, args=(worker, far, ended), name="flmq-clients")
            thread.start()
            try:
                return run_server(far, parts, options, bus=bus, broker="in memory")
            except FlmqError as error:
                if ended:
                    raise SimulatedClientsFailed(ended[0]) from error
                raise
            finally:
                worker.stop()
                thread.join()
    finally:
        bus.close()


def _work(worker: Worker, server: MemoryTransport, ended: list[BaseException]) -> None:
    """Run the clients; if they end early, end the server's run too."""
    try:
        worker.run()
    except BaseException as error:
        logger.exception("the simulated clients failed")
        ended.append(error)
        server.close()


def _ids(num_clients: int | None, clients_ids: Sequence[str] | None) -> list[str]:
    if (num_clients is None) == (clients_ids is None):
        raise InvalidSimulation("give num_clients=... or clients_ids=..., one of the two")
    ids = [str(i) for i in (range(num_clients or 0) if clients_ids is None else clients_ids)]
    if not ids:
        raise InvalidSimulation(f"{num_clients or 0} clients: a federation needs 1 or more")
    client_id, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise InvalidSimulation(f"client id {client_id!r} is given {count} times: give each once")
    return ids
