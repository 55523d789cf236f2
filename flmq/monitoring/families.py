"""The names of all metrics, with their help texts: what dashboards and alerts may ask for.

None has the id of a client, the name of a metric of a strategy, or anything else that a peer may
choose as a label: the number of series is fixed by this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flmq.common.phase import Phase
from flmq.observe.events import Outcome

__all__ = ["BUCKETS", "MEASURED", "PHASES", "Family", "Kind", "phase_label"]

BUCKETS = (
    0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400
)  # fmt: skip
"""Upper bounds of durations, in seconds: from an evaluation to a day's training."""

PHASES = ("fit", "evaluate", "get_parameters", "get_properties", "reconnect", "other")
"""Values of the label ``phase``: flmq's own kinds of message, and all of programs' own as one."""

OUTCOMES = tuple(outcome.value for outcome in Outcome)


class Kind(Enum):
    """The type of a metric, as Prometheus has it."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric that is read from a process's vitals when it is scraped."""

    name: str
    help: str
    kind: Kind = Kind.GAUGE
    label: str = ""
    """What tells several apart; empty if there is but one."""


def phase_label(phase: Phase) -> str:
    """Return the value of the label ``phase``: the names of programs' own kinds are not bounded."""
    return phase.value if phase.value in PHASES else "other"


MEASURED = {
    family.name: family
    for family in (
        # -- every process
        Family(
            "flmq_messages_mismatched_total",
            "Messages dropped as their sender and this process do not have the same keys.",
            Kind.COUNTER,
        ),
        # -- a server
        Family(
            "flmq_queue_messages_ready",
            "Messages that wait in the job's own queues.",
            label="queue",
        ),
        Family("flmq_epoch", "Fencing token of the server: grows with each start of the job."),
        Family(
            "flmq_run_resumed",
            "1 if this server went on with a job that another one had begun.",
        ),
        Family("flmq_uploads_open", "Replies whose tensors are on their way to the server."),
        Family(
            "flmq_uploads_incomplete_total",
            "Replies that were discarded because they broke off on their way.",
            Kind.COUNTER,
        ),
        Family("flmq_chunks_stray_total", "Chunks that belong to no awaited reply.", Kind.COUNTER),
        Family("flmq_journal_bytes", "Size of the run's folder: journal, models, kept replies."),
        # -- a worker
        Family("flmq_worker_clients", "Clients that this process serves."),
        Family(
            "flmq_worker_tasks_open",
            "Tasks that this process has: waiting, being done, or with a reply on its way.",
        ),
        Family("flmq_worker_tasks_at_work", "Tasks that a thread is at work on."),
        Family(
            "flmq_worker_replies_unreceipted",
            "Finished replies that are kept, since no receipt of the server came yet.",
        ),
        Family("flmq_worker_spool_bytes", "Size of the spools: accepted tasks, finished replies."),
        # -- an aggregator
        Family("flmq_aggregator_orders", "Orders of servers that the aggregator has in hand."),
        Family("flmq_aggregator_sites", "Sites whose replies reach the aggregator."),
        Family("flmq_aggregator_ledger_bytes", "Size of the aggregator's folder."),
    )
}
"""Metrics that the parts of a process give as measures (`flmq.observe.vitals`), by name."""
