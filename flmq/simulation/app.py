"""A whole federation in one process: server, clients and an in-memory broker between them."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from flmq.client.client_ids import clients_of
from flmq.client.factory import ClientSource
from flmq.client.options import WorkerOptions
from flmq.client.pool.pool import ProcessPool
from flmq.client.serving.worker import Worker
from flmq.common.errors import FlmqError, RunError
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
from flmq.simulation.hands import Hands, InvalidSimulation
from flmq.simulation.keys import SimulatedKeys, simulated_keys
from flmq.simulation.progress import ProgressLine, is_wanted
from flmq.transport.memory import MemoryBroker, MemoryTransport

__all__ = ["InvalidSimulation", "SimulatedClientsFailed", "simulate", "start_simulation"]


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
    max_workers: int | Literal["auto"] | None = None,
    progress: bool | None = None,
    e2e: bool = False,
    keys: Path | str | None = None,
    observers: Sequence[Observer] | EventBus = (),
    callbacks: Sequence[Callback | RoundEnd] = (),
) -> History:
    """Run a federation of simulated clients, and return its history.

    A client is created for each task, as in Flower's simulation: keep what must last outside of it.
    The clients share this process, and so Python's GIL, which numpy and torch release while they
    compute; with ``max_workers``, each is created and called in one of so many processes instead,
    with the same bits (docs/simulation.md).

    Args:
        client_fn: creates a client from a `ClientContext`, whose ``node_config`` has
            ``partition-id`` (0 to ``num_clients`` - 1) and ``num-partitions``.
        num_clients: number of clients; their ids are ``0``, ``1``, ...
        clients_ids: the clients' ids, in place of ``num_clients``.
        client_resources: of Flower's resources, "num_cpus" counts: the processors of the machine
            are divided by it where ``threads`` or ``max_workers`` is not a number.
        server: as in `start_server`; likewise ``config``, ``strategy``, ``client_manager``,
            ``job``, ``seed``, ``observers`` and ``callbacks``.
        config: see ``server``.
        strategy: see ``server``.
        client_manager: see ``server``.
        ray_init_args: accepted for compatibility with Flower, and ignored, as there is no Ray
            here; likewise ``keep_initialised``.
        keep_initialised: see ``ray_init_args``.
        job: see ``server``.
        seed: see ``server``.
        threads: number of tasks run concurrently; None for one per processor.
        max_workers: number of processes that run tasks, in place of ``threads``; "auto" for one
            per processor. ``client_fn`` must be picklable by cloudpickle.
        progress: whether to show on standard error how far it is; None: in a terminal or notebook.
        e2e: sign and seal what server and clients say, as over a broker that is not trusted
            (docs/e2e.md): with the same bits, at its price.
        keys: with ``e2e``, a folder with the private keys of all clients and of ``server``, of
            `flmq keys new`; None: they are made for this simulation.
        observers: see ``server``.
        callbacks: see ``server``.

    Raises:
        UsageError: arguments contradict each other or are invalid, a key is missing, or
            ``client_fn`` cannot be handed to processes.
        RunError: the run cannot go on.
    """
    show_on_console()
    hands = Hands.of(threads, max_workers, client_resources)
    clients = clients_of(_ids(num_clients, clients_ids), {})
    protection = simulated_keys(e2e, keys, list(clients))
    parts = ServerAppComponents(server, config, strategy, client_manager, callbacks=callbacks)
    options = RunOptions(job=job, seed=seed, observers=observers)
    line = ProgressLine(sys.stderr) if is_wanted(progress, sys.stderr) else None
    return simulate(
        client_fn,
        clients,
        parts,
        options,
        hands=hands,
        keep_clients=False,
        progress=line,
        keys=protection,
    )


def simulate(
    source: ClientSource,
    clients: Mapping[str, Mapping[str, Scalar]],
    parts: ServerAppComponents,
    options: RunOptions,
    *,
    hands: Hands | None = None,
    keep_clients: bool,
    progress: ProgressLine | None = None,
    keys: SimulatedKeys | None = None,
) -> History:
    """Run ``clients`` (ids with their properties) and a server over an in-memory broker.

    ``keys`` protect what they say from end to end.
    """
    # Otherwise the first round would sample only among the clients that registered quickly.
    options = replace(options, clients=len(clients))
    if keys is not None:
        coordinator = replace(options.coordinator, protection=keys.server)
        options = replace(options, coordinator=coordinator)
    bus = EventBus.of(options.observers)
    bus.attach(RunLog())
    try:
        with contextlib.ExitStack() as meanwhile:
            worker_options = (hands or Hands.of()).options(source, meanwhile)
            if progress is not None:
                bus.attach(progress)
                meanwhile.enter_context(progress.shown())
            worker_options = replace(
                worker_options,
                keep_clients=keep_clients,
                keys=None if keys is None else keys.clients,
            )
            return _run(source, clients, parts, options, worker_options, bus)
    finally:
        bus.close()


def _run(
    source: ClientSource,
    clients: Mapping[str, Mapping[str, Scalar]],
    parts: ServerAppComponents,
    options: RunOptions,
    worker_options: WorkerOptions,
    bus: EventBus,
) -> History:
    broker = MemoryBroker()
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
            if isinstance(worker_options.pool, ProcessPool):
                worker_options.pool.close()  # nobody waits for what is still trained
            thread.join()


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
