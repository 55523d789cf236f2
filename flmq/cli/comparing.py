"""``flmq runs compare``: runs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flmq.cli.completing import complete_job
from flmq.cli.export import run_in
from flmq.cli.saying import say_json
from flmq.common.cleaning import one_line
from flmq.common.errors import UsageError
from flmq.observe.measures import figure
from flmq.observe.runs.comparison import ComparedRound, Comparison, Difference, compared

__all__ = ["NothingToCompare", "compare"]

_MOST_ROUNDS = 30
"""Rounds that are shown; `--json` has all."""
_AROUND = 3
_DIGEST = 12
"""Characters shown of a digest."""


class NothingToCompare(UsageError):
    """Fewer than two runs are named."""


def compare(
    context: typer.Context,
    jobs: Annotated[
        list[str],
        typer.Argument(help="Names of two or more jobs.", autocompletion=complete_job),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one object with all rounds.")
    ] = False,
) -> None:
    """Compare runs round by round: measurements, clients, times, and the first other model."""
    if as_json:
        say_json()
    if len(jobs) < 2:
        raise NothingToCompare("one run has nothing to be compared with: name two or more")
    with ExitStack() as stack:
        opened = [run_in(context.obj, job, stack) for job in jobs]
        told = compared(
            [(job, run.head, run.rounds) for job, run in zip(jobs, opened, strict=True)]
        )
    if as_json:
        typer.echo(json.dumps(told.to_dict(), allow_nan=False))
        return
    console = Console(highlight=False, markup=False)
    console.print(_runs(told))
    for line in _differences(told):
        console.print(line, soft_wrap=True)
    for table in _rounds(told, console.width):
        console.print(table)


def _letters(number: int) -> list[str]:
    return [chr(65 + at) if at < 26 else str(at + 1) for at in range(number)]


def _runs(told: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "job", "strategy", "rounds", "s", "loss", "model"):
        table.add_column(column, justify="right" if column in ("rounds", "s", "loss") else "left")
    for letter, run in zip(_letters(len(told.runs)), told.runs, strict=True):
        table.add_row(
            letter,
            one_line(run.name),
            one_line(run.strategy),
            str(run.rounds),
            figure(run.seconds),
            figure(run.final.get("loss")),
            run.digest[:_DIGEST] or "-",
        )
    return table


def _differences(told: Comparison) -> Iterator[str]:
    """Yield the lines that say where the runs part."""
    letters = _letters(len(told.runs))
    if told.first_model is not None:
        digests = (f"{name} {each[:_DIGEST]}" for name, each in _named(letters, told.first_model))
        yield f"other model from round {told.first_model.server_round} on: {', '.join(digests)}"
    elif any(each.same for each in told.rounds):
        known = sum(each.same is True for each in told.rounds)
        yield f"the same model, bit for bit, after each of {known} rounds"
    else:
        yield "whether the models have the same bits is not known: that takes the runs' journals"
    if told.first_measures is not None:
        yield f"other measurements from round {told.first_measures} on"
    if told.first_clients is not None:
        only = (
            f"only {name}: {one_line(each)}"
            for name, each in _named(letters, told.first_clients)
            if each
        )
        since = told.first_clients.server_round
        yield f"other clients count from round {since} on: {'; '.join(only)}"
    shortest, longest = (f(run.rounds for run in told.runs) for f in (min, max))
    if shortest != longest:
        yield f"rounds after {shortest} are not in all of them"


def _named(letters: Sequence[str], found: Difference) -> list[tuple[str, str]]:
    return list(zip(letters, found.values, strict=True))


def _shown(told: Comparison) -> list[ComparedRound]:
    """Return the rounds to show: all, or the first, the last and those where the runs part."""
    rounds = told.rounds
    if len(rounds) <= _MOST_ROUNDS:
        return list(rounds)
    firsts = (told.first_model, told.first_clients)
    parting = [each.server_round for each in firsts if each is not None]
    parting += [] if told.first_measures is None else [told.first_measures]
    ends = {each.server_round for each in (*rounds[:5], *rounds[-5:])}
    return [
        each
        for each in rounds
        if each.server_round in ends or any(abs(each.server_round - at) < _AROUND for at in parting)
    ]


def _rounds(told: Comparison, width: int) -> Iterator[Table | str]:
    """Yield the rounds, in several tables if they are too wide for one."""
    rounds = _shown(told)
    letters = _letters(len(told.runs))
    columns: list[tuple[str, list[str]]] = [("same", [_same(each) for each in rounds])]
    for name in told.names:
        for at, letter in enumerate(letters):
            sides = [each.sides[at] for each in rounds]
            cells = ["" if side is None else figure(side.measures.get(name)) for side in sides]
            columns.append((f"{name} {letter}", cells))
    for at, letter in enumerate(letters):
        sides = [each.sides[at] for each in rounds]
        there = ["" if side is None else f"{len(side.clients)}/{side.asked}" for side in sides]
        columns.append((f"clients {letter}", there))
        columns.append((f"s {letter}", [_seconds(None if s is None else s.seconds) for s in sides]))
    while columns:
        room, taken = width - len("round") - 1, 0
        for name, cells in columns:
            room -= max(map(len, (name, *cells))) + 1
            if room < 0 and taken:
                break
            taken += 1
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("round", *(name for name, _ in columns[:taken])):
            table.add_column(name, justify="right", no_wrap=True)
        before = None
        for place, each in zip(count(), rounds, strict=False):
            if before is not None and each.server_round > before + 1:
                table.add_row("...")
            before = each.server_round
            table.add_row(str(each.server_round), *(cells[place] for _, cells in columns[:taken]))
        yield table
        columns = columns[taken:]
    if len(rounds) < len(told.rounds):
        yield f"{len(told.rounds) - len(rounds)} rounds are not shown: --json has all"


def _same(each: ComparedRound) -> str:
    return {True: "yes", False: "NO", None: "-"}[each.same]


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f}"
