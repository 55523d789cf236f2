"""Options of a run, besides its strategy and configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from flmq.common.environment import RUNS_DIR
from flmq.common.options import option
from flmq.journal.records import KeepPolicy
from flmq.observe.bus import EventBus
from flmq.observe.events import Observer, RunEvent
from flmq.observe.vitals import Vitals
from flmq.server.asks.options import CoordinatorOptions
from flmq.server.strategy.late import LateReplies

__all__ = ["ResumePolicy", "RunOptions"]


class ResumePolicy(Enum):
    """What to do if the job has a journal already."""

    SAME = "same"
    """Resume if strategy and configuration are those of the journal; else refuse."""
    ANYWAY = "anyway"
    """Resume, even if strategy or configuration have changed."""
    FRESH = "fresh"
    """Start over; the old folder is moved aside."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run."""

    job: str | None = option(
        None, "Name of the job. Default: one of its own each time.", env="FLMQ_JOB"
    )
    seed: int | None = option(None, "Of the choice of clients. Default: made from the job's name.")
    runs_dir: Path | None = option(
        None,
        "Folder of the runs' records.",
        env=RUNS_DIR,
        typed_as=Path,
        typed_default=Path("runs"),
    )
    """Folder that holds a folder with a journal for each run; None for no journal, so that a run
    ends with its server."""
    standby: bool = option(
        False,
        "Wait while another server has the job, and take over when it is gone; or fail at once.",
        names=("--standby/--no-standby",),
        typed_default=True,
    )
    late: LateReplies | None = option(
        None,
        "What becomes of training that comes after its round closed, instead of what the strategy "
        "says: drop, or next-round (it counts there).",
        show_default=False,
    )
    resume: ResumePolicy = ResumePolicy.SAME
    anew: bool = False
    """Whether the caller has moved an earlier run of the job aside, to start over."""
    keep: KeepPolicy = field(default_factory=KeepPolicy)
    """Which models and replies stay on disk."""
    clients: int = 0
    """Clients to wait for before the first round, whatever the strategy waits for."""
    coordinator: CoordinatorOptions = field(default_factory=CoordinatorOptions)
    """How clients are asked."""
    observers: Sequence[Observer] | EventBus = field(default_factory=tuple)
    """Observers of the run; to an `EventBus`, more can be attached during the run."""
    sources: Sequence[Callable[[Callable[[RunEvent], None]], None]] = field(default_factory=tuple)
    """Called before the run with a function that emits an event to observers from any thread: a
    source of events other than the server's."""
    vitals: Vitals = field(default_factory=Vitals, compare=False)
    """What the server says of itself when it is asked: see `flmq.monitoring`."""
