"""All that a small federation exports: a server, two workers and an aggregator, in this process."""

from __future__ import annotations

import contextlib
from pathlib import Path

from prometheus_client import generate_latest

from flmq.client.options import WorkerOptions
from flmq.client.serving.worker import Worker
from flmq.common import Config
from flmq.monitoring.role import Role
from flmq.monitoring.serving import Monitor
from flmq.observe.bus import EventBus
from flmq.observe.vitals import Vitals
from flmq.region import AggregatorOptions
from flmq.region.app import Aggregator
from flmq.server.components import ServerAppComponents
from flmq.server.lifecycle.run import run_server
from flmq.server.options import RunOptions
from flmq.server.server_config import ServerConfig
from flmq.testing import MemoryBroker, MemoryTransport, fast_retries
from tests.end_to_end.federation import fed_avg, in_thread, nudge
from tests.monitoring.scraping import Scrape, until


def run_and_scrape(folder: Path) -> list[str]:
    """Run a job of two rounds over the memory broker; what each process exports at the end."""
    broker = MemoryBroker()
    server, worker, aggregator = Vitals(), Vitals(), Vitals()
    monitors = [
        Monitor(Role.SERVER, server),
        Monitor(Role.WORKER, worker),
        Monitor(Role.AGGREGATOR, aggregator),
    ]
    texts: list[str] = []

    def look(server_round: int) -> Config:
        """Called as a round begins: the job has its queues."""
        texts.append(text_of(monitors[0]))
        return {}

    with fast_retries(), contextlib.ExitStack() as stack:

        def transport() -> MemoryTransport:
            return stack.enter_context(MemoryTransport(broker))

        added = Aggregator(
            transport(), AggregatorOptions(site="eu", state_dir=folder / "eu", vitals=aggregator)
        )
        adding = in_thread(added.run)
        options = WorkerOptions(
            heartbeat=1.0,
            state_dir=folder / "state",
            vitals=worker,
            observers=monitors[1].worker_observers,
        )
        working = Worker(transport(), nudge, {"ann": {}, "ben": {}}, options)
        done = in_thread(working.run)
        parts = ServerAppComponents(
            config=ServerConfig(2, 30.0),
            strategy=fed_avg(2, fraction_evaluate=1.0, on_fit_config_fn=look),
        )
        over = transport()
        bus = EventBus(monitors[0].run_observers)
        run = RunOptions(job="job", runs_dir=folder / "runs", observers=bus, vitals=server)
        run_server(over, parts, run, bus=bus, broker="memory")
        bus.close()
        until(
            lambda: "flmq_aggregator_orders" in Scrape.of(text_of(monitors[2])).ours,
            "no aggregator",
        )
        texts += map(text_of, monitors)
        working.stop()
        added.stop()
        done.result(60)
        adding.result(60)
    return texts


def text_of(monitor: Monitor) -> str:
    """What a process exports."""
    return generate_latest(monitor.registry).decode()
