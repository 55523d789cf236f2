"""Collect the figures of one round, for the event that closes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace

from flmq.common.typing import Scalar
from flmq.journal.state import StateValue
from flmq.observe.events import BufferedUpdate, RoundClosed, RoundCounts
from flmq.server.job.request import PhaseResult

__all__ = ["RoundLog"]


@dataclass(slots=True)
class RoundLog:
    """Figures of a round's phases, and its first measurement."""

    started: float
    """Seconds by the ``clock``."""
    clock: Callable[[], float] = time.monotonic
    fit: PhaseResult | None = None
    """Without its replies, like ``evaluate``."""
    evaluate: PhaseResult | None = None
    loss: float | None = None
    metrics: Mapping[str, Scalar] | None = None
    evaluate_loss: float | None = None
    """The clients' loss, if it is not ``loss``."""
    evaluate_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    fit_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    changed: bool = False
    """Whether the round changed the model."""
    note: str = ""
    buffer: tuple[BufferedUpdate, ...] = ()
    """What a step of a run without rounds was made of."""
    failures: int = 0
    """Asks that failed before such a step."""
    digest: str = ""
    """Digest of the model after the round, once that is durable."""
    took: float | None = None
    """Its seconds as its checkpoint has them, so that all say the same; None: it has none."""

    @classmethod
    def begin(cls, clock: Callable[[], float] = time.monotonic) -> RoundLog:
        """Start the log of a round; ``clock`` gives monotonic seconds."""
        return cls(clock(), clock)

    @property
    def seconds(self) -> float:
        """Seconds that the round has taken so far, or until its checkpoint."""
        return self.clock() - self.started if self.took is None else self.took

    def add_fit(self, result: PhaseResult) -> None:
        """Keep the figures of the training, with those that are there already."""
        figures = _figures(result)
        self.fit = figures if self.fit is None else _together(self.fit, figures)

    def add_evaluate(self, result: PhaseResult) -> None:
        """Keep the figures of the evaluation."""
        self.evaluate = _figures(result)

    def measured(self, loss: float, metrics: Mapping[str, Scalar]) -> None:
        """Keep a measurement: the first one, which is the centralized one if any, leads."""
        if self.loss is None:
            self.loss, self.metrics = float(loss), metrics
        else:
            self.evaluate_loss, self.evaluate_metrics = float(loss), metrics

    def summary(self) -> dict[str, StateValue]:
        """Return what a checkpoint keeps of the round, for people and for later servers' events.

        Of a run without rounds it is also what the step can be replayed from.
        """
        self.took = self.seconds
        counts = RoundCounts() if self.fit is None else self.fit.counts
        step: dict[str, StateValue] = {
            "buffer": list(map(astuple, self.buffer)),
            "fit": asdict(counts),
            "failures": self.failures,
        }
        return {
            **(step if self.buffer else {}),
            "loss": self.loss,
            "metrics": dict(self.metrics or {}),
            "fit_metrics": dict(self.fit_metrics),
            "evaluate_loss": self.evaluate_loss,
            "evaluate_metrics": dict(self.evaluate_metrics),
            "changed": self.changed,
            "seconds": self.seconds,
            "note": self.note,
        }

    def closed(self, server_round: int, num_rounds: int) -> RoundClosed:
        """Return the event that the round is over."""
        phases = [phase for phase in (self.fit, self.evaluate) if phase is not None]
        return RoundClosed(
            server_round=server_round,
            num_rounds=num_rounds,
            fit=RoundCounts() if self.fit is None else self.fit.counts,
            evaluate=RoundCounts() if self.evaluate is None else self.evaluate.counts,
            loss=self.loss,
            metrics=self.metrics or {},
            seconds=self.seconds,
            bytes_down=sum(phase.bytes_down for phase in phases),
            bytes_up=sum(phase.bytes_up for phase in phases),
            note=self.note,
            incomplete_uploads=sum(phase.incomplete_uploads for phase in phases),
            stray_chunks=sum(phase.stray_chunks for phase in phases),
            fit_metrics=self.fit_metrics,
            evaluate_loss=self.evaluate_loss,
            evaluate_metrics=self.evaluate_metrics,
            changed=self.changed,
            buffer=self.buffer,
            digest=self.digest,
        )


def _figures(result: PhaseResult) -> PhaseResult:
    """Return everything but the replies, whose files would otherwise stay on disk."""
    return replace(result, replies={}, failures=[], late=())


def _together(one: PhaseResult, other: PhaseResult) -> PhaseResult:
    return replace(
        one,
        counts=one.counts + other.counts,
        bytes_down=one.bytes_down + other.bytes_down,
        bytes_up=one.bytes_up + other.bytes_up,
    )
