"""Starting a server: from a broker's URL, or any transport, to the run's History."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from flmq.common.environment import broker_url
from flmq.common.logger import logger, show_on_console
from flmq.common.names import make_job_name
from flmq.common.typing import Scalar
from flmq.common.urls import parse_broker_url
from flmq.round import Policy
from flmq.server.bus import EventBus
from flmq.server.client_manager import ClientManager
from flmq.server.components import InvalidComponents, ServerAppComponents, build_server
from flmq.server.coordinator import Coordinator, CoordinatorOptions
from flmq.server.events import ConnectionChanged, Observer, RunEnded, RunStarted
from flmq.server.history import History
from flmq.server.job import Job
from flmq.server.presence import PresenceWatcher
from flmq.server.proxy import QueueClientProxy
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy.strategy import Strategy
from flmq.transport import (
    ConnectionEvent,
    StateListener,
    Transport,
    open_transport,
)

__all__ = ["RunOptions", "run_server", "run_server_on_broker", "start_server"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is run, besides what the strategy and its configuration say."""

    job: str | None = None
    """Name of the job; None: a readable name of its own each time."""
    seed: int | None = None
    """Of the choice of clients; None: made from the job's name."""
    coordinator: CoordinatorOptions = field(default_factory=CoordinatorOptions)
    """How clients are asked."""
    observers: Sequence[Observer] = field(default_factory=tuple)
    """Who is told how the run goes."""


def start_server(
    *,
    server_address: str | None = None,
    server: Server | None = None,
    config: ServerConfig | None = None,
    strategy: Strategy | None = None,
    client_manager: ClientManager | None = None,
    grpc_max_message_length: int | None = None,
    certificates: tuple[bytes, bytes, bytes] | None = None,
    job: str | None = None,
    seed: int | None = None,
    observers: Sequence[Observer] = (),
) -> History:
    """Run a job over RabbitMQ, and return what was measured. Blocks until the job is over.

    Args:
        server_address: URL of the broker, ``amqp://user:password@host:port/vhost`` or ``amqps``;
            None: the environment variable ``FLMQ_BROKER_URL``.
        server: a `Server` of one's own, in place of strategy and client manager.
        config: number of rounds, and the time allowed for each phase of one.
        strategy: what is asked of clients and made of their replies; None: `FedAvg`.
        client_manager: who is asked; None: `SimpleClientManager`.
        grpc_max_message_length: accepted for Flower's sake, without effect: there is no limit.
        certificates: not supported; TLS is configured in the URL.
        job: name of the job; None: a readable name of its own each time.
        seed: of the choice of clients; None: made from the job's name.
        observers: called with each event of the run (`flmq.server.events`).

    Raises:
        UsageError: arguments contradict each other or are not usable.
        JobInUse: another live server runs this job.
        BrokerError: the broker cannot be reached, or refuses.
        RunError: the run cannot go on.
    """
    show_on_console()
    if certificates is not None:
        raise InvalidComponents(
            "certificates are for Flower's own server; with flmq the broker has them: give an "
            "amqps:// URL with ?cafile=... (and certfile, keyfile where the broker asks for them)"
        )
    url = broker_url(server_address)
    parts = ServerAppComponents(server, config, strategy, client_manager)
    return run_server_on_broker(url, parts, RunOptions(job=job, seed=seed, observers=observers))


def run_server_on_broker(url: str, parts: ServerAppComponents, options: RunOptions) -> History:
    """Run a job over the RabbitMQ at ``url``; see `start_server`."""
    bus = EventBus(options.observers)
    try:
        with open_transport(url, name="flmq server", listener=_to_bus(bus)) as transport:
            return run_server(transport, parts, options, bus=bus, broker=str(parse_broker_url(url)))
    finally:
        bus.close()


def run_server(
    transport: Transport,
    parts: ServerAppComponents,
    options: RunOptions,
    *,
    bus: EventBus,
    broker: str,
) -> History:
    """Run a job over ``transport``, which the caller closes; ``broker`` is for people to read."""
    server, config = build_server(parts)
    job = Job.create(make_job_name() if options.job is None else options.job)
    # The watcher needs proxies, which need the coordinator, which needs the watcher.
    presence = PresenceWatcher(
        server.client_manager(),
        lambda client_id: QueueClientProxy(client_id, coordinator),
        bus.emit,
        time.monotonic,
    )
    coordinator = Coordinator(
        transport,
        job,
        presence,
        bus.emit,
        options.coordinator,
    )
    seed = _seed_of(job.name) if options.seed is None else options.seed
    server.attach(coordinator, bus.emit, seed=seed, policy=_policy(config))
    coordinator.start()
    strategy = type(server.strategy).__name__
    bus.emit(RunStarted(job.name, config.num_rounds, strategy, broker))
    logger.info("job %s: %d rounds of %s on %s", job.name, config.num_rounds, strategy, broker)
    return _run_to_its_end(server, config, coordinator, bus)


def _run_to_its_end(
    server: Server, config: ServerConfig, coordinator: Coordinator, bus: EventBus
) -> History:
    job, started = coordinator.job.name, time.monotonic()
    try:
        history, seconds = server.fit(config.num_rounds, config.round_timeout)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        bus.emit(RunEnded(job, server.rounds_closed, time.monotonic() - started, error=reason))
        coordinator.end(f"failed: {reason}")
        raise
    coordinator.end("all rounds done")
    loss, metrics = final_measurement(history)
    bus.emit(
        RunEnded(
            job,
            config.num_rounds,
            seconds,
            final_loss=loss,
            final_metrics=metrics,
            parameters=server.parameters,
        )
    )
    logger.info("job %s: done, %d rounds in %.1f s", job, config.num_rounds, seconds)
    return history


def final_measurement(history: History) -> tuple[float | None, dict[str, Scalar]]:
    """Last loss and metrics: the centralized ones where there are any."""
    if history.losses_centralized:
        losses, metrics = history.losses_centralized, history.metrics_centralized
    else:
        losses, metrics = history.losses_distributed, history.metrics_distributed
    loss = losses[-1][1] if losses else None
    return loss, {name: series[-1][1] for name, series in metrics.items() if series}


def _policy(config: ServerConfig) -> Policy:
    # Where nothing is asked, an empty closing set still goes to the strategy, as in Flower.
    return Policy(min_results=config.min_results or 0, target_results=config.target_results)


def _seed_of(job: str) -> int:
    return int.from_bytes(hashlib.blake2b(job.encode(), digest_size=8).digest(), "big")


def _to_bus(bus: EventBus) -> StateListener:
    def tell(event: ConnectionEvent) -> None:
        bus.emit(ConnectionChanged(event.role, event.state.value, event.detail))

    return tell
