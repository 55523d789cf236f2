"""Spans of a run's rounds and phases, and of a worker's tasks, for OpenTelemetry.

Nothing travels with a task: the ids of a round's trace and of its phases' spans are derived from
job, run, round and phase, which every task has, so that a worker knows its span's parent, and a
server that resumes goes on with the trace of the one before. A peer that names another job or run
has its worker's spans in another trace, of an id of the same form, and no more.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from flmq.observe.events import (
    ConnectionChanged,
    Note,
    PhaseClosed,
    PhaseOpened,
    ReplySent,
    RoundClosed,
    RunEnded,
    RunEvent,
    RunStarted,
    TaskReceived,
    TaskRef,
    TrainingEnded,
    TrainingStarted,
    WorkerEvent,
)

__all__ = ["DerivedIds", "RunSpans", "TaskSpans"]

_LONGEST = 256
"""Characters of an attribute."""
_MOST_TASKS = 10_000
"""Tasks whose span is open: of more, the oldest gets none."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class DerivedIds(IdGenerator):
    """Gives the next trace and span the ids that were asked for, and others random ones."""

    def __init__(self) -> None:
        """Give random ones until told otherwise. For one thread: an observer's."""
        self._random = RandomIdGenerator()
        self.trace: int | None = None
        self.span: int | None = None

    def generate_trace_id(self) -> int:
        """Return the id of the next trace."""
        trace, self.trace = self.trace, None
        return self._random.generate_trace_id() if trace is None else trace

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        span, self.span = self.span, None
        return self._random.generate_span_id() if span is None else span


def _hash(words: tuple[object, ...], size: int) -> int:
    text = "\0".join(map(str, ("flmq", *words))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=size).digest(), "big") or 1


def _trace_id(job: str, run: str, server_round: int) -> int:
    return _hash((job, run, server_round), 16)


def _span_id(*words: object) -> int:
    return _hash(words, 8)


def _ns(unix_seconds: float) -> int:
    return int(unix_seconds * 1e9)


class RunSpans:
    """An observer of a run: a span of this server, and of each round with its phases."""

    def __init__(
        self, provider: TracerProvider, ids: DerivedIds, clock: Callable[[], float] = time.time
    ) -> None:
        """Make spans with ``provider``, whose ids are ``ids``; ``clock`` gives Unix seconds."""
        self._tracer = provider.get_tracer("flmq")
        self._ids = ids
        self._clock = clock
        self._job = self._run = ""
        self._server: Span | None = None
        self._round: tuple[int, Span] | None = None
        self._phase: Span | None = None

    def __call__(self, event: RunEvent) -> None:
        """Begin or end what ``event`` begins or ends."""
        match event:
            case RunStarted():
                self._start(event)
            case PhaseOpened():
                self._open(event)
            case PhaseClosed():
                self._close_phase(event)
            case RoundClosed():
                self._close_round(event)
            case Note() if self._round is not None:
                self._round[1].add_event("note", {"text": event.text[:_LONGEST]})
            case ConnectionChanged() if self._server is not None:
                what = {"state": event.state, "detail": event.detail[:_LONGEST]}
                self._server.add_event("connection", what)
            case RunEnded():
                self._end(event)

    def _start(self, event: RunStarted) -> None:
        self._job, self._run = event.job, event.run
        # A trace of the run; each of its servers is a span there.
        self._ids.trace = _hash((event.job, event.run), 16)
        self._server = self._tracer.start_span(
            "server",
            start_time=_ns(self._clock()),
            attributes={
                "flmq.job": event.job,
                "flmq.run": event.run,
                "flmq.strategy": event.strategy,
                "flmq.rounds": event.num_rounds,
                "flmq.rounds_before": len(event.earlier),
            },
        )

    def _begin_round(self, server_round: int) -> Span:
        if self._round is not None and self._round[0] == server_round:
            return self._round[1]
        self._ids.trace = _trace_id(self._job, self._run, server_round)
        self._ids.span = _span_id(self._job, self._run, server_round)
        links = [] if self._server is None else [Link(self._server.get_span_context())]
        span = self._tracer.start_span(
            "round",
            links=links,
            start_time=_ns(self._clock()),
            attributes={"flmq.job": self._job, "flmq.run": self._run, "flmq.round": server_round},
        )
        self._round = (server_round, span)
        return span

    def _open(self, event: PhaseOpened) -> None:
        parent = set_span_in_context(self._begin_round(event.server_round))
        self._ids.span = _span_id(self._job, self._run, event.server_round, event.phase.value)
        self._phase = self._tracer.start_span(
            f"phase {event.phase.value}",
            parent,
            kind=SpanKind.PRODUCER,
            start_time=_ns(self._clock()),
            attributes={"flmq.phase": event.phase.value, "flmq.asked": len(event.asked)},
        )

    def _close_phase(self, event: PhaseClosed) -> None:
        if self._phase is None:
            return
        counts = event.counts
        for name in ("accepted", "failed", "rejected", "silent", "late", "duplicate"):
            self._phase.set_attribute(f"flmq.{name}", getattr(counts, name))
        self._phase.set_attribute("flmq.bytes_down", event.bytes_down)
        self._phase.set_attribute("flmq.bytes_up", event.bytes_up)
        self._phase.set_attribute("flmq.closed_by", event.reason[:_LONGEST])
        self._phase.end(_ns(self._clock()))
        self._phase = None

    def _close_round(self, event: RoundClosed) -> None:
        span = self._begin_round(event.server_round)
        span.set_attribute("flmq.changed", event.changed)
        if event.loss is not None:
            span.set_attribute("flmq.loss", event.loss)
        if event.note:
            span.set_status(Status(StatusCode.ERROR, event.note[:_LONGEST]))
        span.end(_ns(self._clock()))
        self._round = None

    def _end(self, event: RunEnded) -> None:
        """End the server's span; a round that is open is its successor's to end."""
        if self._server is None:
            return
        self._server.set_attribute("flmq.rounds_closed", event.rounds)
        if event.error is not None and not event.stopped:
            self._server.set_status(Status(StatusCode.ERROR, event.error[:_LONGEST]))
        self._server.end(_ns(self._clock()))
        self._server = None


@dataclass(slots=True)
class _Task:
    span: Span
    started: float | None = None


class TaskSpans:
    """An observer of a worker: a span for each task, from its arrival to its reply's confirm."""

    def __init__(self, provider: TracerProvider) -> None:
        """Make spans with ``provider``."""
        self._tracer = provider.get_tracer("flmq")
        self._open: OrderedDict[str, _Task] = OrderedDict()

    def __call__(self, event: WorkerEvent) -> None:
        """Begin or end what ``event`` begins or ends."""
        match event:
            case TaskReceived():
                self._receive(event)
            case TrainingStarted():
                if (task := self._open.get(event.task.task_id)) is not None:
                    task.started = event.at
            case TrainingEnded():
                self._trained(event)
            case ReplySent():
                if (task := self._open.pop(event.task.task_id, None)) is not None:
                    task.span.end(_ns(event.at))

    def _receive(self, event: TaskReceived) -> None:
        ref = event.task
        if ref.task_id in self._open:
            self._open[ref.task_id].span.add_event("redelivered", timestamp=_ns(event.at))
            return
        span = self._tracer.start_span(
            f"task {ref.phase.value}",
            set_span_in_context(NonRecordingSpan(_phase_of(ref))),
            kind=SpanKind.CONSUMER,
            start_time=_ns(event.at),
            attributes={
                "flmq.job": ref.job[:_LONGEST],
                "flmq.run": ref.run[:_LONGEST],
                "flmq.round": ref.server_round,
                "flmq.phase": ref.phase.value,
                "flmq.client": ref.client_id[:_LONGEST],
                "flmq.task": ref.task_id[:_LONGEST],
                "flmq.redelivered": event.again,
            },
        )
        self._open[ref.task_id] = _Task(span)
        if len(self._open) > _MOST_TASKS:
            self._open.popitem(last=False)

    def _trained(self, event: TrainingEnded) -> None:
        task = self._open.get(event.task.task_id)
        if task is None:
            return
        began = event.at - max(0.0, event.seconds) if task.started is None else task.started
        child = self._tracer.start_span(
            "train", set_span_in_context(task.span), start_time=_ns(began)
        )
        if event.num_examples is not None:
            child.set_attribute("flmq.examples", event.num_examples)
        if event.error:
            for span in (child, task.span):
                span.set_status(Status(StatusCode.ERROR, event.error[:_LONGEST]))
        child.end(_ns(event.at))


def _phase_of(ref: TaskRef) -> SpanContext:
    """Return the span of the phase that a task belongs to, which its server makes."""
    return SpanContext(
        _trace_id(ref.job, ref.run, ref.server_round),
        _span_id(ref.job, ref.run, ref.server_round, ref.phase.value),
        is_remote=True,
        trace_flags=_SAMPLED,
    )
