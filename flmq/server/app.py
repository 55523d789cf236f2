"""Start a server over RabbitMQ: from a broker's URL to the run's History."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flmq.common.environment import broker_url, runs_dir
from flmq.common.logger import show_on_console
from flmq.common.urls import parse_broker_url
from flmq.journal.records import KeepPolicy
from flmq.observe.bus import EventBus
from flmq.observe.events import ConnectionChanged, Observer
from flmq.observe.run_log import RunLog
from flmq.observe.vitals import Vitals
from flmq.server.asks.options import CoordinatorOptions
from flmq.server.client_manager import ClientManager
from flmq.server.components import InvalidComponents, ServerAppComponents, build_server
from flmq.server.history import History
from flmq.server.lifecycle.run import run_server
from flmq.server.lifecycle.signs import not_in_charge
from flmq.server.options import ResumePolicy, RunOptions
from flmq.server.presence.allow_list import read_allow_list
from flmq.server.rhythm.callbacks import Callback, RoundEnd
from flmq.server.secure.options import KeyOptions
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy.strategy import Strategy
from flmq.transport import ConnectionEvent, StateListener, open_transport

__all__ = ["run_server_on_broker", "start_server"]


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
    runs: Path | str | None = None,
    resume: ResumePolicy = ResumePolicy.SAME,
    standby: bool = False,
    compression: str = "none",
    max_reply_bytes: int | None = None,
    clients_allow: Path | str | None = None,
    e2e: bool = False,
    keys: Path | str | None = None,
    trust: Path | str | None = None,
    observers: Sequence[Observer] | EventBus = (),
    callbacks: Sequence[Callback | RoundEnd] = (),
    keep_best: str | None = None,
) -> History:
    """Run a job over RabbitMQ, and return its history. Blocks until the job is over.

    A job with a name stays one job: it has a journal in ``runs``, and when its server is started
    again after whatever ended it, it resumes in the middle of the round it was in; a finished job
    returns its result.

    Args:
        server_address: URL of the broker, ``amqp://user:password@host:port/vhost`` or ``amqps``;
            None to use the environment variable ``FLMQ_BROKER_URL``.
        server: a custom `Server`, in place of strategy and client manager.
        config: number of rounds, and the time allowed for each phase of one.
        strategy: decides what clients are asked and how replies are aggregated; None for `FedAvg`.
        client_manager: chooses the clients; None for `SimpleClientManager`.
        grpc_max_message_length: accepted for compatibility with Flower, and ignored; see
            max_reply_bytes.
        certificates: not supported; TLS is configured in the URL.
        job: name of the job; None for a new readable name each time, and no journal.
        seed: seed of the choice of clients; None to derive it from the job's name.
        runs: folder of the journals; None for ``FLMQ_RUNS_DIR``, or ``runs``.
        resume: what to do if the job has a journal already.
        standby: wait while another live server has the job, and take over when it is gone.
        compression: how clients may compress their replies: "none", "zstd" (lossless), "fp16",
            "bf16" or "int8" (`flmq.wire.codecs` states their errors).
        max_reply_bytes: refuse larger replies before storing anything of them; None for four
            times what was sent to the client, plus 64 MiB.
        clients_allow: a file with the ids of the clients that may take part, one per line; None
            to allow all.
        e2e: sign and seal all that this job's server and its clients say, for a broker that is
            not trusted (docs/security.md).
        keys: with ``e2e``, the file of this server's private key.
        trust: with ``e2e``, the public keys of the clients that may take part: a folder of
            ``.pub`` files, or one file.
        observers: called with each event of the run (`flmq.observe.events`); an `EventBus`, which
            is closed at the end, lets more observers be attached during the run.
        callbacks: called with the model after each round, with each reply, and at the run's
            beginning and end (`flmq.server.Callback`).
        keep_best: keep the best model so far in the run's folder, as ``best.safetensors``: by
            "loss" the least, by the name of a metric the greatest. None: do not.

    Raises:
        UsageError: arguments contradict each other or are invalid.
        JobInUse: another live server runs this job.
        JobChanged: the job was begun with another strategy or configuration.
        StoredDataError: the job's journal is damaged.
        BrokerError: the broker cannot be reached, or refuses.
        RunError: the run cannot go on.
    """
    show_on_console()
    if certificates is not None:
        raise InvalidComponents(
            "certificates are for Flower's own server; with flmq the broker has them: give an "
            "amqps:// URL with ?cafile=... (and certfile, keyfile where the broker asks for them)"
        )
    if keep_best is not None and job is None:
        raise InvalidComponents(
            "keep_best keeps a model in the run's folder, and a job without a name has none: give "
            "job=..."
        )
    options = RunOptions(
        job=job,
        seed=seed,
        runs_dir=None if job is None else runs_dir(runs),
        resume=resume,
        standby=standby,
        coordinator=CoordinatorOptions(
            compression=compression,
            max_reply_bytes=max_reply_bytes,
            clients_allowed=None if clients_allow is None else read_allow_list(clients_allow),
            protection=KeyOptions(e2e, _path(keys), _path(trust)).load(),
        ),
        keep=KeepPolicy(best=keep_best),
        observers=observers,
    )
    parts = ServerAppComponents(server, config, strategy, client_manager, callbacks=callbacks)
    return run_server_on_broker(broker_url(server_address), parts, options)


def run_server_on_broker(url: str, parts: ServerAppComponents, options: RunOptions) -> History:
    """Run a job over the RabbitMQ at ``url``; see `start_server`."""
    # Report mistakes in the parts before connecting to a broker.
    server, config = build_server(parts)
    parts = ServerAppComponents(server=server, config=config, callbacks=parts.callbacks)
    bus = EventBus.of(options.observers)
    bus.attach(RunLog())
    try:
        for source in options.sources:
            source(bus.emit)
        # Before it is connected, and would pass for ready.
        not_in_charge(options.vitals, options.job or "the job")
        told = _told(bus, options.vitals)
        with open_transport(url, name="flmq server", listener=told) as transport:
            return run_server(transport, parts, options, bus=bus, broker=str(parse_broker_url(url)))
    finally:
        bus.close()


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _told(bus: EventBus, vitals: Vitals) -> StateListener:
    def tell(event: ConnectionEvent) -> None:
        vitals.connection_changed(event)
        bus.emit(ConnectionChanged(event.role, event.state.value, event.detail))

    return tell
