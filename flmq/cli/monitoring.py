"""Options by which a process shows itself to those who operate it, and what they start."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from flmq.common.environment import LOG_FORMAT, METRICS_PORT, LogFormat
from flmq.common.json_lines import JsonLines
from flmq.common.logger import logger
from flmq.common.options import option
from flmq.monitoring.errors import MetricsNotInstalled, MetricsPortInUse
from flmq.monitoring.role import Role
from flmq.observe.events import Observer, WorkerObserver
from flmq.observe.vitals import Vitals

__all__ = ["Monitoring", "Observers", "contradiction", "wants_spans"]

_DISABLED, _EXPORTER = "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"
_END, _TRACES_END = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Observers:
    """What the events of a process are to be told, so that it can be seen."""

    run: tuple[Observer, ...] = ()
    worker: tuple[WorkerObserver, ...] = ()


@dataclass(frozen=True, slots=True)
class Monitoring:
    """How a process is seen."""

    metrics_port: int | None = option(
        None,
        "Port for Prometheus (/metrics) and probes (/healthz, /readyz); 0: any that is free. "
        "Default: none. Needs the extra `metrics`.",
        env=METRICS_PORT,
        at_least=0,
        at_most=65535,
        show_default=False,
    )
    metrics_address: str = option(
        "127.0.0.1",
        "Address of that port. Everybody who reaches it can read it: 0.0.0.0 only where a firewall "
        "or a NetworkPolicy says who does, as in a pod.",
        env="FLMQ_METRICS_ADDRESS",
    )

    log_format: LogFormat = option(
        LogFormat.TEXT,
        "Of the log: text for people, json for programs: one object a line, and nothing else is "
        "written.",
        env=LOG_FORMAT,
    )

    def begin(self) -> None:
        """Have this process, and those that it starts, write their log as wanted."""
        os.environ[LOG_FORMAT] = self.log_format
        if self.log_format is LogFormat.JSON and logging.lastResort is not None:
            # It writes what libraries say whose loggers nobody has told where to.
            logging.lastResort.setFormatter(JsonLines())

    @contextmanager
    def shown(self, role: Role, vitals: Vitals) -> Iterator[Observers]:
        """Show the process with these ``vitals`` for as long as the block runs.

        Raises:
            MetricsNotInstalled: a port is wanted, and the extra is not installed.
            MetricsPortInUse: the port cannot be opened.
        """
        with _traced(role) as traced, self._measured(role, vitals) as measured:
            yield Observers(measured.run + traced.run, measured.worker + traced.worker)

    @contextmanager
    def _measured(self, role: Role, vitals: Vitals) -> Iterator[Observers]:
        if self.metrics_port is None:
            yield Observers()
            return
        try:
            from flmq.monitoring.serving import Monitor  # only where it is wanted
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("prometheus_client"):
                raise
            raise MetricsNotInstalled from None
        monitor = Monitor(role, vitals)
        server = monitor.serve(self.metrics_address, self.metrics_port)
        try:
            yield Observers(monitor.run_observers, monitor.worker_observers)
        finally:
            server.close()

    def port_of(self, position: int) -> int | None:
        """Return the port of one of several processes, counted from 0; None if none has one."""
        if not self.metrics_port:
            return self.metrics_port
        return self.metrics_port + position

    def check_ports(self, processes: int) -> None:
        """Check that there is a port for each of ``processes``.

        Raises:
            MetricsPortInUse: there are not so many.
        """
        last = self.port_of(processes - 1)
        if last is not None and last > 65535:
            raise MetricsPortInUse(
                self.metrics_address,
                last,
                f"{processes} processes need a port each, from --metrics-port on",
            )


@contextmanager
def _traced(role: Role) -> Iterator[Observers]:
    """Make spans for as long as the block runs, if the environment wants them."""
    if role is not Role.AGGREGATOR and (problem := contradiction(os.environ)):
        logger.warning("%s", problem)
    if role is Role.AGGREGATOR or not wants_spans(os.environ):
        yield Observers()
        return
    try:
        from flmq.monitoring.exporting import Tracing, exporters  # only where they are wanted
        from flmq.monitoring.tracing import RunSpans, TaskSpans
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("opentelemetry"):
            raise
        # The variables may be there for other programs: no reason not to run.
        logger.warning("OTEL_... is set, but no spans are made: pip install 'flmq[otel]'")
        yield Observers()
        return
    made = exporters(os.environ)
    if not made:
        yield Observers()
        return
    tracing = Tracing(role.value, made)
    try:
        if role is Role.SERVER:
            yield Observers(run=(RunSpans(tracing.provider, tracing.ids),))
        else:
            yield Observers(worker=(TaskSpans(tracing.provider),))
    finally:
        tracing.close()


def contradiction(environ: Mapping[str, str]) -> str:
    """Return how OpenTelemetry's variables contradict each other, and what to do; empty: not."""
    named = environ.get(_EXPORTER, "")
    names = {name.strip() for name in named.split(",")} - {""}
    end = next((name for name in (_TRACES_END, _END) if environ.get(name)), "")
    if environ.get(_DISABLED, "").lower() == "true":
        said = f"{_EXPORTER}={named}" if names - {"none"} else f"{end} is set" if end else ""
        return said and (
            f"no spans are made: {_DISABLED}=true, though {said}: unset one of the two"
        )
    if "none" in names and len(names) > 1:
        return f"{_EXPORTER}={named} names exporters and none: leave out one or the other"
    if environ.get(_TRACES_END) and names and "otlp" not in names:
        # The other endpoint is for metrics and logs of other programs, too.
        return (
            f"nothing is sent to {_TRACES_END}: {_EXPORTER}={named}; say otlp there, or unset one "
            "of the two"
        )
    return ""


def wants_spans(environ: Mapping[str, str]) -> bool:
    """Return whether OpenTelemetry's variables name somewhere to send spans."""
    if environ.get(_DISABLED, "").lower() == "true":
        return False
    named = environ.get(_EXPORTER, "")
    return named != "none" and bool(named or any(environ.get(end) for end in (_END, _TRACES_END)))
