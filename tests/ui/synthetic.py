"""Runs of any size, written through the journal's own writer, whose rounds tell a known story.

Round 7 is slowed by one client, and round 9 has one reply less: that client was away. Nothing is
trained; every time is drawn from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flmq.common import Scalar, ndarrays_to_parameters
from flmq.common.phase import Phase
from flmq.common.times import TaskTimes, WorkerTimes
from flmq.journal import (
    ClosedPhase,
    Contribution,
    JobIdentity,
    Journal,
    Part,
    PhaseKey,
    Plan,
    PlannedAsk,
)
from flmq.observe.courses.split import phase_about
from flmq.observe.eventlog.writer import EventLog, EventLogOptions
from flmq.observe.events import ClientPresence, RunEnded, RunStarted
from flmq.round import Outcome, Policy, TaskOutcome

__all__ = ["HOSTILE", "T0", "Synthetic", "write_run"]

T0 = 1_790_000_000_000
"""When runs begin, in Unix ms."""

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>document.title='owned'</script>",
    '"><svg onload=alert(2)>',
    "a&amp;b'c\"d`e",
    "\u202eright-to-left\u202c",
    "x" * 200,
    "50%2F..%2F..%2Fetc",
    "{{ 7*7 }} ${7*7}",
)
"""Names of clients that would break out of a page that wrote them into its markup."""

_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Synthetic:
    """What run to write."""

    job: str = "synthetic"
    rounds: int = 12
    clients: int = 8
    names: tuple[str, ...] = ()
    """Of the first clients; the others are client-000, and so on."""
    slow_round: int = 7
    missing_round: int = 9
    evaluate: bool = True
    open_round: bool = False
    """Whether one more round is open at the end, half of it answered."""
    older: int = 0
    """How many clients are of an flmq that tells no times."""
    seed: int = 7

    @property
    def client_ids(self) -> tuple[str, ...]:
        """All clients, in the order of their ids."""
        made = (f"client-{number:03}" for number in range(self.clients - len(self.names)))
        return tuple(sorted((*self.names, *made)))


def write_run(runs_dir: Path, what: Synthetic) -> Path:
    """Write the run's folder; return it."""
    folder = runs_dir / what.job
    clock = _Clock()
    journal = Journal.open(folder, clock=clock)
    try:
        identity = JobIdentity(what.job, f"{what.seed:016x}", bytes(32), what.seed)
        about: dict[str, Scalar] = {"num_rounds": what.rounds, "strategy": "FedAvg"}
        journal.begin(identity, {"flmq": "synthetic", "strategy": "FedAvg"}, about)
        epoch = journal.take_charge()
        log = EventLog(folder, EventLogOptions(epoch, False, False), lambda: clock.ms / 1000)
        log(RunStarted(what.job, what.rounds, "FedAvg", "in memory"))
        writer = _Writer(what, journal, clock, log)
        for server_round in range(1, what.rounds + 1):
            writer.play(server_round)
        if what.open_round:
            writer.leave_open(what.rounds + 1)
            log.close()
        else:
            log(RunEnded(what.job, what.rounds, clock.seconds))
            journal.finish({"rounds": what.rounds, "seconds": clock.seconds, "loss": 0.1})
    finally:
        journal.close()
    return folder


class _Clock:
    """A clock that a story turns: milliseconds, read by the journal as nanoseconds."""

    def __init__(self) -> None:
        self.ms = T0

    def __call__(self) -> int:
        return self.ms * 1_000_000

    @property
    def seconds(self) -> float:
        return (self.ms - T0) / 1000


class _Writer:
    """Plays rounds into a journal."""

    def __init__(self, what: Synthetic, journal: Journal, clock: _Clock, log: EventLog) -> None:
        self._what = what
        self._log = log
        self._journal = journal
        self._clock = clock
        self._random = random.Random(what.seed)
        self._older = frozenset(what.client_ids[: what.older])
        for place, client in enumerate(what.client_ids, 1):
            log(ClientPresence(client, "online", "said hello", place, "1.0"))

    def play(self, server_round: int) -> None:
        """Play one round to its checkpoint."""
        begun = self._clock.ms
        self._phase(server_round, Phase.FIT)
        if self._what.evaluate:
            self._phase(server_round, Phase.EVALUATE)
        self._clock.ms += 20
        loss = 2.0 / (1 + server_round) ** 0.7
        summary = {
            "loss": loss,
            "metrics": {"accuracy": 1 - loss / 3},
            "fit_metrics": {"train_loss": loss * 0.9},
            "seconds": (self._clock.ms - begun) / 1000,
            "changed": True,
            "note": "",
        }
        model = ndarrays_to_parameters([np.full(4, server_round, np.float32)])
        self._journal.checkpoint(server_round, model, {}, {}, summary)
        self._clock.ms += 30
        if server_round == self._what.missing_round:
            self._clock.ms += 2500
            ids = self._what.client_ids
            back = ids[len(ids) // 2]
            self._log(ClientPresence(back, "online", "said hello", len(ids), "1.0"))

    def leave_open(self, server_round: int) -> None:
        """Open one more round, of which every second client has answered."""
        key = PhaseKey(server_round, Phase.FIT, 0)
        self._open(key)
        parts = list(self._parts(key))[::2]
        self._clock.ms += 400
        self._contribute(key, [part.ask for part in parts])

    def _phase(self, server_round: int, phase: Phase) -> None:
        key = PhaseKey(server_round, phase, 0)
        opened = self._clock.ms
        self._open(key)
        parts = list(self._parts(key))
        accepted = tuple(part.ask for part in parts if part.outcome is Outcome.ACCEPTED)
        silent = len(accepted) < len(parts)
        last = max((p.times.counted_ms or 0 for p in parts if p.times), default=opened)
        closed = opened + round(_TIMEOUT * 1000) if silent else last + 3
        self._contribute(key, accepted)
        for gone in (part.ask for part in parts if part.outcome is Outcome.SILENT):
            self._clock.ms = opened + 4000
            online = len(parts) - 1
            self._log(ClientPresence(gone, "away", "no heartbeat for 4 s", online, "1.0"))
        self._clock.ms = closed
        outcomes = tuple(TaskOutcome(p.ask, p.outcome, p.reason) for p in parts if p.outcome)
        ending = ClosedPhase(
            "deadline" if silent else "all answered",
            accepted,
            outcomes,
            (closed - opened) / 1000,
            40_000 * len(parts),
            sum(part.bytes for part in parts),
        )
        self._journal.phases.close(key, ending, parts, phase_about(parts, opened, closed))

    def _open(self, key: PhaseKey) -> None:
        asks = tuple(PlannedAsk(c, _task(c, key), b"task") for c in self._what.client_ids)
        self._journal.phases.open(key, Plan(asks, _TIMEOUT, Policy()))

    def _contribute(self, key: PhaseKey, asks: Sequence[str]) -> None:
        accepted = Outcome.ACCEPTED
        self._journal.phases.contribute_many(
            [(key, Contribution(c, _task(c, key), accepted, reply=b"r", size=1)) for c in asks]
        )

    def _parts(self, key: PhaseKey) -> Iterator[Part]:
        what, draw, opened = self._what, self._random, self._clock.ms
        ids = what.client_ids
        slow, gone = ids[len(ids) // 3], ids[len(ids) // 2]
        fit = key.phase is Phase.FIT
        for place, client in enumerate(ids):
            if fit and key.server_round == what.missing_round and client == gone:
                yield Part(client, Outcome.SILENT, "deadline", times=TaskTimes(opened + 2))
                continue
            training = draw.gauss(900, 90) if fit else draw.gauss(120, 12)
            if fit and key.server_round == what.slow_round and client == slow:
                training += 5200
            published = opened + 1 + place // 50
            taken = published + round(draw.uniform(2, 40))
            started = taken + round(draw.uniform(5, 30))
            ended = started + max(20, round(training))
            received = ended + round(draw.uniform(5, 60))
            offset = (place % 7 - 3) * 1000
            worker = WorkerTimes(
                taken_ms=taken + offset,
                begun_ms=taken + 1 + offset,
                training_started_ms=started + offset,
                training_ended_ms=ended + offset,
                upload_started_ms=ended + 1 + offset,
                deliveries=1,
                deaths=0,
            )
            told = None if client in self._older else worker
            yield Part(
                client,
                Outcome.ACCEPTED,
                seconds=(received - opened) / 1000,
                num_examples=100 + place,
                bytes=40_000 if fit else 300,
                metrics={"accuracy": min(1.0, 0.5 + key.server_round / 100 + draw.random() / 50)},
                times=TaskTimes(published, received, received + 4, told, float(offset), 3.0),
            )


def _task(client: str, key: PhaseKey) -> str:
    return f"{client}-{key.server_round}-{key.phase.value}"
