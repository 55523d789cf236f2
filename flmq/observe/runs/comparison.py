"""Two or more runs side by side, round by round: pure, from their records.

`flmq runs compare` prints it and the page draws it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flmq.common.jsonvalues import to_json
from flmq.common.phase import Phase
from flmq.common.typing import Scalar
from flmq.observe.events import Outcome
from flmq.observe.measures import measures_of
from flmq.observe.record import RoundRecord, RunRecord

__all__ = [
    "ComparedRound",
    "ComparedRun",
    "Comparison",
    "Difference",
    "RoundSide",
    "compared",
    "side_of",
]


@dataclass(frozen=True, slots=True)
class RoundSide:
    """A round of one of the runs."""

    seconds: float
    digest: str
    """Digest of the model after it; empty: not known, as the run has no journal."""
    measures: Mapping[str, Scalar]
    """All that was measured, by the names of `measures_of`."""
    clients: tuple[str, ...]
    """Those whose training counts in it, in order."""
    asked: int
    """Clients that were asked to train."""


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the runs."""

    name: str
    """The name of its folder."""
    strategy: str
    started: str
    """ISO 8601, UTC."""
    seconds: float | None
    rounds: int
    """Rounds that are over."""
    final: Mapping[str, Scalar]
    """The measurements of its last round."""
    digest: str
    """Digest of its last model; empty: not known."""
    about: Mapping[str, Scalar] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ComparedRound:
    """A round of all the runs."""

    server_round: int
    sides: tuple[RoundSide | None, ...]
    """A run each, in their order; None: it has no such round."""
    same: bool | None
    """Whether the models have the same bits; None: not known, or a run has no such round."""
    same_measures: bool | None
    """Whether all of their measurements are equal; None: a run has no such round."""
    same_clients: bool | None
    """Whether the same clients' training counts; None: a run has no such round."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first round in which something differs."""

    server_round: int
    values: tuple[str, ...]
    """Of each run: the digest of its model, or the clients that only it has."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side."""

    runs: tuple[ComparedRun, ...]
    names: tuple[str, ...]
    """Names of all measurements, in the order in which they are shown."""
    rounds: tuple[ComparedRound, ...]
    first_model: Difference | None
    """The first round after which the models' bits differ; None: none is known to."""
    first_measures: int | None
    """The first round in which a measurement differs."""
    first_clients: Difference | None
    """The first round in which other clients' training counts."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        plain: dict[str, Any] = to_json(asdict(self))
        return plain


def side_of(closed: RoundRecord) -> RoundSide:
    """Return what is compared of a round."""
    accepted = {
        each.client_id
        for each in closed.outcomes
        if each.phase == Phase.FIT.value and each.word == Outcome.ACCEPTED.value
    }
    return RoundSide(
        closed.seconds,
        closed.digest,
        measures_of(closed),
        tuple(sorted(accepted)),
        closed.fit.asked,
    )


def compared(runs: Sequence[tuple[str, RunRecord, Iterable[RoundRecord]]]) -> Comparison:
    """Compare two or more runs: of each its name, its record's head, and its rounds in order."""
    sides: list[dict[int, RoundSide]] = [
        {closed.server_round: side_of(closed) for closed in rounds} for _, _, rounds in runs
    ]
    names: dict[str, None] = {}
    for side in (side for each in sides for side in each.values()):
        names.update(dict.fromkeys(side.measures))
    numbers = sorted({number for each in sides for number in each})
    rounds = tuple(_round(number, tuple(each.get(number) for each in sides)) for number in numbers)
    return Comparison(
        tuple(_run(name, head, each) for (name, head, _), each in zip(runs, sides, strict=True)),
        tuple(names),
        rounds,
        next((_by_model(each) for each in rounds if each.same is False), None),
        next((each.server_round for each in rounds if each.same_measures is False), None),
        next((_by_clients(each) for each in rounds if each.same_clients is False), None),
    )


def _run(name: str, head: RunRecord, sides: Mapping[int, RoundSide]) -> ComparedRun:
    last = sides[max(sides)] if sides else None
    return ComparedRun(
        name,
        head.strategy,
        head.started,
        head.seconds,
        len(sides),
        {} if last is None else last.measures,
        "" if last is None else last.digest,
        head.about,
        head.error,
    )


def _round(number: int, sides: tuple[RoundSide | None, ...]) -> ComparedRound:
    there = [side for side in sides if side is not None]
    if len(there) < len(sides):
        return ComparedRound(number, sides, None, None, None)
    digests = {side.digest for side in there}
    return ComparedRound(
        number,
        sides,
        None if "" in digests else len(digests) == 1,
        # NaN is equal to itself here: the runs say the same.
        len({repr(sorted(side.measures.items())) for side in there}) == 1,
        len({side.clients for side in there}) == 1,
    )


def _by_model(each: ComparedRound) -> Difference:
    return Difference(each.server_round, tuple(side.digest for side in each.sides if side))


def _by_clients(each: ComparedRound) -> Difference:
    sides = [set(side.clients) for side in each.sides if side is not None]
    everywhere = set[str].intersection(*sides)
    return Difference(
        each.server_round, tuple(", ".join(sorted(side - everywhere)) for side in sides)
    )
