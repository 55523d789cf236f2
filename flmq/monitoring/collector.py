"""Metrics that are read from a process's vitals whenever Prometheus asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from flmq.monitoring.families import MEASURED, Family, Kind
from flmq.monitoring.reading import PatientReading
from flmq.observe.vitals import Measure, Vitals
from flmq.transport import ConnectionState

__all__ = ["VitalsCollector"]

_PATIENCE = 0.8
"""Seconds that all slow readings together may take of a scrape."""


class VitalsCollector(Collector):
    """Yields what a process's parts say of it, and its connection to the broker."""

    def __init__(self, vitals: Vitals, clock: Callable[[], float] = time.monotonic) -> None:
        """Read ``vitals``; ``clock`` gives monotonic seconds."""
        self._vitals = vitals
        self._clock = clock
        self._slow: dict[Measure, PatientReading] = {}

    def describe(self) -> list[Metric]:
        """Return nothing: names are checked when they are read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, in well under two seconds."""
        yield from self._connection()
        yield from self._health()
        yield from self._measures()

    def _connection(self) -> Iterator[Metric]:
        connection = self._vitals.connection
        yield _gauge(
            "flmq_connection_up",
            "1 while the connection to the broker stands.",
            connection.state in (ConnectionState.CONNECTED, ConnectionState.BLOCKED),
        )
        yield _gauge(
            "flmq_connection_blocked",
            "1 while the broker lets this process publish nothing.",
            connection.state is ConnectionState.BLOCKED,
        )
        losses = CounterMetricFamily(
            "flmq_connection_losses_total", "Times that the connection to the broker was lost."
        )
        losses.add_metric((), connection.losses)
        yield losses
        seconds = CounterMetricFamily(
            "flmq_connection_trouble_seconds_total",
            "Seconds without the broker: while the connection was lost, and while it was blocked.",
            labels=("state",),
        )
        for state, value in connection.seconds.items():
            seconds.add_metric((state.value,), value)
        yield seconds

    def _health(self) -> Iterator[Metric]:
        yield _gauge("flmq_ready", "1 if the process does its work: /readyz.", not self._lacks())
        silences = GaugeMetricFamily(
            "flmq_loop_silence_seconds",
            "Seconds since a loop of the process last came round: /healthz.",
            labels=("loop",),
        )
        for loop, silent in self._vitals.silences().items():
            silences.add_metric((loop,), silent)
        yield silences

    def _lacks(self) -> list[str]:
        return self._vitals.unready()

    def _measures(self) -> Iterator[Metric]:
        found: dict[str, dict[str, float]] = {}
        measures = self._vitals.all_measures()
        for measure in measures:
            if measure.blocks:
                self._reading(measure).start()
        deadline = self._clock() + _PATIENCE
        for measure in measures:
            if measure.blocks:
                left = max(0.0, deadline - self._clock())
                values: Mapping[str, float] = self._reading(measure).values(left)
            else:
                values = measure.read()
            together = found.setdefault(measure.name, {})
            for key, value in values.items():
                together[key] = together.get(key, 0.0) + value
        for name, values in found.items():
            if values:
                yield _family(MEASURED[name], values)

    def _reading(self, measure: Measure) -> PatientReading:
        return self._slow.setdefault(measure, PatientReading(measure.read, clock=self._clock))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _family(family: Family, values: Mapping[str, float]) -> Metric:
    labels = (family.label,) if family.label else ()
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric: CounterMetricFamily | GaugeMetricFamily = kind(family.name, family.help, labels=labels)
    for key, value in values.items():
        metric.add_metric((key,) if labels else (), value)
    return metric
