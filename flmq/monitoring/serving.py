"""Open a port for one process: /metrics for Prometheus, /healthz and /readyz for probes."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from flmq import __version__
from flmq.common.logger import logger
from flmq.monitoring.collector import VitalsCollector
from flmq.monitoring.http import Answer, HttpServer
from flmq.monitoring.role import Role
from flmq.monitoring.run_metrics import RunMetrics
from flmq.monitoring.worker_metrics import WorkerMetrics
from flmq.observe.events import Observer, WorkerObserver
from flmq.observe.vitals import Vitals

__all__ = ["Monitor"]

_SAME_FOR = 0.2
"""Seconds for which scrapes get the same text: many at a time cost no more than one."""


class Monitor:
    """The metrics of one process, in a registry of its own, and the port where they are told."""

    def __init__(
        self, role: Role, vitals: Vitals, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep metrics of a process in ``role``; ``clock`` gives monotonic seconds."""
        # They would be a second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._vitals = vitals
        self._clock = clock
        self._lock = threading.Lock()
        self._text = b""
        self._until = clock()
        build = Info("flmq_build", "The version of flmq, and what it is here.", registry=registry)
        build.info(
            {"version": __version__, "python": platform.python_version(), "role": role.value}
        )
        self.run_observers: tuple[Observer, ...] = ()
        """What a run's events are to be told."""
        self.worker_observers: tuple[WorkerObserver, ...] = ()
        """What a worker's events are to be told."""
        if role is Role.SERVER:
            self.run_observers = (RunMetrics(registry),)
        elif role is Role.WORKER:
            self.worker_observers = (WorkerMetrics(registry),)
        registry.register(VitalsCollector(vitals, clock))
        ProcessCollector(registry=registry)

    def serve(self, address: str, port: int) -> HttpServer:
        """Answer at ``address`` and ``port`` until the server is closed.

        Raises:
            MetricsPortInUse: the port is taken.
        """
        answers = {"/metrics": self.metrics, "/healthz": self.health, "/readyz": self.readiness}
        server = HttpServer(address, port, answers)
        logger.info("metrics are at %s/metrics", server.url)
        return server

    def metrics(self) -> Answer:
        """Return all metrics, as Prometheus reads them."""
        with self._lock:
            if self._clock() >= self._until or not self._text:
                self._text = generate_latest(self.registry)
                self._until = self._clock() + _SAME_FOR
            return Answer(200, self._text, CONTENT_TYPE_LATEST)

    def health(self) -> Answer:
        """Say whether all loops go round; if not, only another start helps."""
        return _said(self._vitals.stuck(), "alive")

    def readiness(self) -> Answer:
        """Say whether the process does its work."""
        return _said(self._vitals.unready(), "ready")


def _said(lacks: list[str], well: str) -> Answer:
    text = "\n".join(lacks) or well
    return Answer(503 if lacks else 200, f"{text}\n".encode())
