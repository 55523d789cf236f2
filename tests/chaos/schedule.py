"""What happens to a run, drawn from a seed: where processes crash, and what comes when."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tests.chaos.program import Variant

__all__ = [
    "SERVER",
    "SERVER_POINTS",
    "WORKER_POINTS",
    "Fault",
    "Kind",
    "Schedule",
    "client_names",
    "draw",
    "draw_with_sites",
]

SERVER = "server"
SERVER_POINTS = (
    "server.phase_planned",
    "server.model_published",
    "server.tasks_published",
    "server.reply_journalled",
    "server.phase_closed",
    "server.round_aggregated",
    "server.round_closed",
)
WORKER_POINTS = (
    "worker.task_received",
    "worker.task_spooled",
    "worker.task_acked",
    "worker.before_training",
    "worker.trained",
    "worker.reply_spooled",
    "worker.reply_confirmed",
)
_IN_CHUNKS = ("blob.chunk_published",)
"""Of the server's model, and of workers' replies; where these are large."""
_ANNOUNCED = ("worker.reply_announced",)
_IN_TRAINING = "program.training"
"""In the user's own code: a task that kills its worker, life after life."""
_OF_A_SPOOL = ("worker.task_spooled", "worker.task_acked", "worker.reply_spooled")


class Kind(Enum):
    """What is done to a run from outside."""

    KILL_SERVER = "kill server"
    KILL_CLIENT = "kill client"
    KILL_BROKER = "kill broker"
    CUT = "cut"
    OUTAGE = "outage"
    """No way to the broker for some seconds."""
    CLOSE = "broker closes"
    HALF_OPEN = "half-open"
    """Present connections carry nothing more, and nobody is told."""
    STALL = "stall"
    """The same for a moment, after which everything arrives."""
    DELAY = "delay"
    SLOW = "slow link"
    ALARM = "memory alarm"
    DELETE_STREAM = "delete stream"
    DELETE_QUEUE = "delete queue"
    """Of a client, under its consumer."""
    DELETE_REPLIES = "delete replies"
    """The job's reply queue, under the replies that are on their way."""
    POLICY = "operator's policy"
    """On every queue, for some seconds: one message at most, for five seconds at most."""
    HOSTILE = "hostile message"
    """Into a queue of the job or of a client."""
    KILL_SITE = "kill site broker"
    KILL_HUB = "kill hub broker"
    KILL_AGGREGATOR = "kill aggregator"
    CUT_LINK = "cut link"
    """Between a site and its parent, for some seconds."""
    SLOW_LINK = "slow site link"


_OF_A_CLIENT = (Kind.KILL_CLIENT, Kind.DELETE_QUEUE, Kind.HOSTILE)
KILLS = (Kind.KILL_SERVER, Kind.KILL_CLIENT, Kind.KILL_BROKER)
_WEIGHTS: Mapping[Kind, int] = {  # where all are before one broker
    Kind.KILL_SERVER: 5,
    Kind.KILL_CLIENT: 7,
    Kind.KILL_BROKER: 2,
    Kind.CUT: 6,
    Kind.OUTAGE: 2,
    Kind.CLOSE: 1,
    Kind.HALF_OPEN: 2,
    Kind.STALL: 2,
    Kind.DELAY: 2,
    Kind.SLOW: 2,
    Kind.ALARM: 1,
    Kind.DELETE_STREAM: 2,
    Kind.DELETE_QUEUE: 2,
    Kind.DELETE_REPLIES: 2,
    Kind.POLICY: 1,
    Kind.HOSTILE: 4,
}


_AGGREGATOR = Kind.KILL_AGGREGATOR
_SITE_WEIGHTS: Mapping[Kind, int] = {
    Kind.KILL_SERVER: 4,
    Kind.KILL_CLIENT: 3,
    Kind.KILL_HUB: 1,
    Kind.KILL_SITE: 2,
    Kind.KILL_AGGREGATOR: 6,
    Kind.CUT_LINK: 5,
    Kind.SLOW_LINK: 3,
}
_OVER_SITES = (Variant.LARGE, Variant.PLAIN, Variant.STATEFUL, Variant.SAMPLED, Variant.MEDIAN)


@dataclass(frozen=True, slots=True)
class Fault:
    """One disturbance."""

    after: float
    """Seconds after the one before it; the first: after the first training has begun."""
    kind: Kind
    client: str = ""
    """Whom it meets, where it meets one client; the site, where it meets one."""
    seconds: float = 0.0
    """How long it lasts, where it lasts; which message it is, where it is one."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job, and everything that is done to it."""

    seed: int
    variant: Variant = Variant.PLAIN
    clients: int = 3
    rounds: int = 4
    training_seconds: float = 0.1
    crashes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each process, where its lives end, as ``FLMQ_CRASH_AT`` says it."""
    faults: Sequence[Fault] = ()
    forks: bool = False
    """Whether trainings leave children behind, which hold what their parent had open."""
    aggregators: Sequence[str] = ()
    """Sites that have one."""


def client_names(clients: int) -> list[str]:
    """Ids of so many clients."""
    return [f"c{i}" for i in range(clients)]


def draw(seed: int, *, faults: int = 9) -> Schedule:
    """Draw a run: its job, up to three crashes a process, and ``faults`` from outside.

    Consecutive seeds take variants and crash points in turn, so that a campaign meets all of them.
    """
    rng = random.Random(seed)
    variant = list(Variant)[seed % len(Variant)]
    clients, rounds = rng.choice([3, 4]), rng.choice([4, 5, 6])
    names = client_names(clients)
    points = [p for p in WORKER_POINTS if variant is not Variant.DISKLESS or p not in _OF_A_SPOOL]
    server_points = list(SERVER_POINTS)
    if variant is Variant.LARGE:
        points += (*_ANNOUNCED, *_IN_CHUNKS)
        server_points += _IN_CHUNKS
    crashes = {SERVER: _crashes(rng, server_points, 3 * seed, 3, visits=2)}
    for i, name in enumerate(names):
        crashes[name] = _crashes(rng, points, 2 * seed + i, rng.randint(0, 3), visits=3)
    # One task a run kills whoever takes it up, twice in a row.
    crashes[names[seed % clients]] += [f"{_IN_TRAINING}:1"] * 2
    return Schedule(
        seed,
        variant,
        clients,
        rounds,
        rng.choice([0.05, 0.2, 0.5]),
        crashes,
        tuple(_fault(rng, names) for _ in range(faults)),
        forks=seed % 3 == 0,
    )


def draw_with_sites(seed: int, sites: Sequence[str], *, faults: int = 9) -> Schedule:
    """Draw a run over ``sites`` below a hub, each with an aggregator in two runs of three."""
    rng = random.Random(seed)
    variant = list(_OVER_SITES)[seed % len(_OVER_SITES)]
    clients, rounds = rng.choice([4, 5, 6]), rng.choice([4, 5])
    names = client_names(clients)
    aggregators = tuple(sites) if seed % 3 else ()
    weights = {k: w for k, w in _SITE_WEIGHTS.items() if aggregators or k is not _AGGREGATOR}
    return Schedule(
        seed,
        variant,
        clients,
        rounds,
        rng.choice([0.05, 0.2, 0.5]),
        faults=tuple(_site_fault(rng, weights, names, sites) for _ in range(faults)),
        aggregators=aggregators,
    )


def _site_fault(
    rng: random.Random, weights: Mapping[Kind, int], names: Sequence[str], sites: Sequence[str]
) -> Fault:
    kind = rng.choices(list(weights), list(weights.values()))[0]
    after = 1.5 if kind in (Kind.KILL_HUB, Kind.KILL_SITE) else 0.1
    whom = names if kind is Kind.KILL_CLIENT else sites
    return Fault(after + rng.expovariate(1.0), kind, rng.choice(whom), rng.uniform(0.5, 8.0))


def _crashes(
    rng: random.Random, points: Sequence[str], first: int, count: int, visits: int
) -> list[str]:
    wanted = [points[(first + i) % len(points)] for i in range(count)]
    return [f"{point}:{rng.randint(1, visits)}" for point in wanted]


def _fault(rng: random.Random, names: Sequence[str]) -> Fault:
    kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    # The broker's quorum queue is not durable in its first half second (RabbitMQ 3.10).
    after = 1.5 if kind is Kind.KILL_BROKER else 0.1
    longest = {Kind.HALF_OPEN: 6.0, Kind.STALL: 2.0}.get(kind, 3.0)
    return Fault(
        after + rng.expovariate(1.0),
        kind,
        rng.choice(names) if kind in _OF_A_CLIENT else "",
        rng.uniform(0.5, longest),
    )
