"""Count a worker's events for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from flmq.monitoring.families import BUCKETS, phase_label
from flmq.observe.events import (
    EventsDropped,
    ReceiptCame,
    ReplySent,
    TaskReceived,
    TrainingEnded,
    WorkerEvent,
)

__all__ = ["WorkerMetrics"]

_RECEIPTS = ("accepted", "rejected", "late", "duplicate")


class WorkerMetrics:
    """An observer of a worker that keeps its metrics in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Add the metrics of a worker to ``registry``."""
        self._received = Counter(
            "flmq_worker_tasks_received", "Tasks that came.", ("phase",), registry=registry
        )
        self._again = Counter(
            "flmq_worker_tasks_redelivered",
            "Tasks of them that the broker had delivered before.",
            registry=registry,
        )
        self._done = Counter(
            "flmq_worker_tasks_done",
            "Tasks that were done, by whether the client's code succeeded.",
            ("phase", "result"),
            registry=registry,
        )
        self._seconds = Histogram(
            "flmq_worker_task_duration_seconds",
            "Seconds that the client's code took.",
            ("phase",),
            buckets=BUCKETS,
            registry=registry,
        )
        self._sent = Counter(
            "flmq_worker_replies_sent",
            "Replies that the broker has.",
            ("phase",),
            registry=registry,
        )
        self._receipts = Counter(
            "flmq_worker_receipts",
            "Receipts of servers for replies, by what became of the reply.",
            ("outcome",),
            registry=registry,
        )
        self._dropped = Counter(
            "flmq_events_dropped",
            "Events that these metrics were not told of, as there were too many at a time.",
            registry=registry,
        )
        for outcome in _RECEIPTS:
            self._receipts.labels(outcome)
        for phase in ("fit", "evaluate"):
            self._received.labels(phase)
            for result in ("ok", "failed"):
                self._done.labels(phase, result)

    def __call__(self, event: WorkerEvent) -> None:
        """Count one event."""
        match event:
            case TaskReceived():
                self._received.labels(phase_label(event.task.phase)).inc()
                if event.again:
                    self._again.inc()
            case TrainingEnded():
                phase = phase_label(event.task.phase)
                self._done.labels(phase, "failed" if event.error else "ok").inc()
                self._seconds.labels(phase).observe(max(0.0, event.seconds))
            case ReplySent():
                self._sent.labels(phase_label(event.task.phase)).inc()
            case ReceiptCame():
                # A receipt's word comes from a peer.
                outcome = event.outcome if event.outcome in _RECEIPTS else "other"
                self._receipts.labels(outcome).inc()
            case EventsDropped():
                self._dropped.inc(sum(event.counts.values()))
