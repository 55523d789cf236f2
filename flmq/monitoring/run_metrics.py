"""Count a run's events for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from flmq.monitoring.families import BUCKETS, phase_label
from flmq.observe.events import (
    ClientOutcome,
    ClientPresence,
    ClientsAwaited,
    EventsDropped,
    Outcome,
    PartialSumCame,
    PhaseClosed,
    PhaseOpened,
    RoundClosed,
    RunEnded,
    RunEvent,
    RunStarted,
)

__all__ = ["RunMetrics"]

_PRESENCE = ("online", "away", "gone")
_STATES = ("waiting", "running", "finished", "failed", "stopped")
_ANSWERS = frozenset(Outcome) - {Outcome.LATE, Outcome.DUPLICATE}
"""Outcomes of which each task has one."""


class RunMetrics:
    """An observer of a run that keeps its metrics in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Add the metrics of a run to ``registry``."""
        self._info = Info("flmq_run", "The job that this server runs.", registry=registry)
        self._state = Gauge(
            "flmq_run_state",
            "1 for the state that the run is in, 0 for all others.",
            ("state",),
            registry=registry,
        )
        self._round = Gauge("flmq_round", "The round in progress.", registry=registry)
        self._planned = Gauge(
            "flmq_rounds_planned", "Rounds that the run is to have.", registry=registry
        )
        self._clients = Gauge(
            "flmq_clients",
            "Clients that the server knows, by state.",
            ("state",),
            registry=registry,
        )
        self._needed = Gauge(
            "flmq_clients_needed",
            "Clients that the server waits for before it goes on; 0 if it does not wait.",
            registry=registry,
        )
        self._closed = Counter(
            "flmq_rounds_closed", "Rounds that this server has closed.", registry=registry
        )
        self._unchanged = Counter(
            "flmq_rounds_unchanged",
            "Rounds of them that left the model as it was.",
            registry=registry,
        )
        self._awaited = Gauge(
            "flmq_tasks_awaited", "Tasks of the open phase without an outcome.", registry=registry
        )
        self._replies = Counter(
            "flmq_replies",
            "Outcomes of tasks, and of replies that came late or twice.",
            ("phase", "outcome"),
            registry=registry,
        )
        self._sums = Counter(
            "flmq_partial_sums",
            "Partial sums that came from aggregators, by whether they count.",
            ("result",),
            registry=registry,
        )
        self._bytes = Counter(
            "flmq_transferred_bytes",
            "Bytes of tasks, models and replies: down to clients, up to the server.",
            ("direction",),
            registry=registry,
        )
        self._round_seconds = Histogram(
            "flmq_round_duration_seconds",
            "Seconds that a round took.",
            buckets=BUCKETS,
            registry=registry,
        )
        self._phase_seconds = Histogram(
            "flmq_phase_duration_seconds",
            "Seconds that a phase of a round took.",
            ("phase",),
            buckets=BUCKETS,
            registry=registry,
        )
        self._reply_seconds = Histogram(
            "flmq_reply_delay_seconds",
            "Seconds from the opening of a phase to a reply that counts.",
            ("phase",),
            buckets=BUCKETS,
            registry=registry,
        )
        self._loss = Gauge("flmq_loss", "Loss after the last round.", registry=registry)
        self._dropped = Counter(
            "flmq_events_dropped",
            "Events that these metrics were not told of, as there were too many at a time.",
            registry=registry,
        )
        self._state_of: dict[str, str] = {}
        """The state of each client that the server knows."""
        self._without_outcome = 0
        self._of_round = [0, 0]
        """Bytes down and up that are counted for the round in progress."""
        for each in ("fit", "evaluate"):
            for outcome in Outcome:
                self._replies.labels(each, outcome.value)
        for direction in ("down", "up"):
            self._bytes.labels(direction)
        for result in ("accepted", "refused"):
            self._sums.labels(result)
        for state in _PRESENCE:
            self._clients.labels(state)
        self._now("waiting")

    def __call__(self, event: RunEvent) -> None:
        """Count one event."""
        match event:
            case RunStarted():
                self._info.info({"job": event.job, "strategy": event.strategy})
                self._planned.set(event.num_rounds)
                self._round.set(len(event.earlier))
                if event.earlier and event.earlier[-1].loss is not None:
                    self._loss.set(event.earlier[-1].loss)
                self._now("running")
            case ClientPresence():
                self._meet(event)
            case ClientsAwaited():
                self._needed.set(max(0, event.needed - event.online))
            case PhaseOpened():
                self._needed.set(0)
                self._round.set(event.server_round)
                self._await(len(event.asked))
            case ClientOutcome():
                self._outcome(event)
            case PartialSumCame():
                self._sums.labels("refused" if event.refused else "accepted").inc()
            case PhaseClosed():
                self._await(0)
                self._phase_seconds.labels(phase_label(event.phase)).observe(event.seconds)
                self._add_bytes(event.bytes_down, event.bytes_up)
            case RoundClosed():
                self._close(event)
            case EventsDropped():
                self._dropped.inc(sum(event.counts.values()))
            case RunEnded():
                self._await(0)
                failed = "failed" if event.error is not None else "finished"
                self._now("stopped" if event.stopped else failed)

    def _meet(self, event: ClientPresence) -> None:
        before = self._state_of.get(event.client_id)
        if before is not None:
            self._clients.labels(before).dec()
        if event.status in _PRESENCE:
            self._state_of[event.client_id] = event.status
            self._clients.labels(event.status).inc()

    def _await(self, outcomes: int) -> None:
        self._without_outcome = outcomes
        self._awaited.set(outcomes)

    def _outcome(self, event: ClientOutcome) -> None:
        phase = phase_label(event.phase)
        self._replies.labels(phase, event.outcome.value).inc()
        if event.outcome in _ANSWERS:
            self._await(max(0, self._without_outcome - 1))
        if event.outcome is Outcome.ACCEPTED and event.seconds is not None:
            self._reply_seconds.labels(phase).observe(event.seconds)

    def _add_bytes(self, down: int, up: int) -> None:
        for position, (direction, amount) in enumerate((("down", down), ("up", up))):
            self._bytes.labels(direction).inc(max(0, amount))
            self._of_round[position] += max(0, amount)

    def _close(self, event: RoundClosed) -> None:
        """Count a round, and the bytes of what it did outside of its phases."""
        down, up = self._of_round
        self._add_bytes(max(0, event.bytes_down - down), max(0, event.bytes_up - up))
        self._of_round = [0, 0]
        self._closed.inc()
        if not event.changed:
            self._unchanged.inc()
        self._round.set(event.server_round)
        self._round_seconds.observe(event.seconds)
        if event.loss is not None:
            self._loss.set(event.loss)

    def _now(self, state: str) -> None:
        for each in _STATES:
            self._state.labels(each).set(each == state)
