"""Runs over one another, as the page shows them: what `GET /api/compare` answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flmq.common.errors import StoredDataError, UsageError
from flmq.common.jsonvalues import to_json
from flmq.observe.runs.comparison import ComparedRound, ComparedRun, Comparison, compared
from flmq.observe.runs.reading import opened_run

__all__ = ["MOST_RUNS", "CannotCompare", "compare_runs"]

MOST_RUNS = 6
"""Runs that are told apart by colour and dashes."""
_MOST_NAMES = 20
"""Clients that are named where other ones count."""


class CannotCompare(UsageError):
    """These runs cannot be compared; says what to do."""


def compare_runs(folders: Iterable[Path], jobs: Sequence[str]) -> dict[str, Any]:
    """Return runs over one another, round by round, as JSON can hold it.

    ``jobs`` are names of ``folders``, in the order in which to show them; one named twice is once.

    Raises:
        CannotCompare: they are not two to six runs that are there; or one cannot be read.
    """
    wanted = list(dict.fromkeys(job for job in jobs if job))
    if not 2 <= len(wanted) <= MOST_RUNS:
        raise CannotCompare(f"{len(wanted)} runs: choose 2 to {MOST_RUNS} to compare")
    there = {path.name: path for path in folders}
    with ExitStack() as stack:
        sides = []
        for job in wanted:
            if job not in there:  # also what would lead out of the folder
                raise CannotCompare(f"there is no run {job[:80]!r}: choose others")
            try:
                run = stack.enter_context(opened_run(there[job]))
            except StoredDataError as error:
                raise CannotCompare(f"run {job} cannot be read: {error}") from error
            sides.append((job, run.head, run.rounds))
        try:
            return _said(compared(sides))
        except StoredDataError as error:
            raise CannotCompare(f"a run cannot be read: {error}") from error


def _said(comparison: Comparison) -> dict[str, Any]:
    model, clients = comparison.first_model, comparison.first_clients
    said: dict[str, Any] = to_json(
        {
            "runs": [_run(run) for run in comparison.runs],
            "names": list(comparison.names),
            "rounds": [_round(each) for each in comparison.rounds],
            "first_model": model and {"round": model.server_round, "digests": list(model.values)},
            "first_measures": comparison.first_measures,
            "first_clients": clients and clients.server_round,
        }
    )
    return said


def _run(run: ComparedRun) -> dict[str, Any]:
    return {
        "job": run.name,
        "strategy": run.strategy,
        "started": run.started,
        "seconds": run.seconds,
        "rounds": run.rounds,
        "final": dict(run.final),
        "digest": run.digest,
        "about": dict(run.about),
        "error": run.error,
    }


def _round(each: ComparedRound) -> dict[str, Any]:
    counted = [set(side.clients) for side in each.sides if side is not None]
    everywhere = set[str].intersection(*counted)
    sides: list[dict[str, Any] | None] = []
    for side in each.sides:
        if side is None:
            sides.append(None)
            continue
        only = sorted(set(side.clients) - everywhere) if each.same_clients is False else []
        sides.append(
            {
                "seconds": side.seconds,
                "digest": side.digest,
                "measures": dict(side.measures),
                "counted": len(side.clients),
                "asked": side.asked,
                "only": only[:_MOST_NAMES],
                "only_more": max(0, len(only) - _MOST_NAMES),
            }
        )
    return {
        "round": each.server_round,
        "same": each.same,
        "same_measures": each.same_measures,
        "same_clients": each.same_clients,
        "sides": sides,
    }
