"""``flmq runs``: what was run, what became of each task, and the same bits again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flmq.cli.exit_codes import ExitCode
from flmq.cli.load import load_server
from flmq.cli.options import RunsDir, pairs
from flmq.common.errors import UsageError
from flmq.journal import Journal, list_runs
from flmq.journal.records import PhaseRow, RoundRow, RunInfo
from flmq.round import Word
from flmq.server.components import build_server
from flmq.server.context import ServerContext
from flmq.server.replay import replay as replay_run
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.strategy import Strategy

__all__ = ["NoSuchRun", "runs_app"]

runs_app = typer.Typer(help="The runs that servers keep.", invoke_without_command=True)

_Job = Annotated[str, typer.Argument(help="Name of the job.", show_default=False)]
_DEFAULT = Path("runs")


class NoSuchRun(UsageError):
    """There is no run of that name in the folder of runs."""

    def __init__(self, job: str, folder: Path) -> None:
        """Name both."""
        super().__init__(f"there is no run {job!r} in {folder}: `flmq runs` lists those there are")


@runs_app.callback()
def runs(context: typer.Context, runs_dir: RunsDir = _DEFAULT) -> None:
    """List runs: by job, whether they are running, unfinished, finished or damaged."""
    if context.invoked_subcommand is not None:
        context.obj = runs_dir
        return
    table = Table(box=None, pad_edge=False)
    for column in ("job", "state", "rounds", "started", "note"):
        table.add_column(column, justify="right" if column == "rounds" else "left")
    for run in list_runs(runs_dir):
        table.add_row(run.job, run.state.value, str(run.rounds), _when(run), run.problem)
    if table.row_count == 0:
        typer.echo(f"no runs in {runs_dir}", err=True)
        return
    Console(highlight=False).print(table)


@runs_app.command()
def show(context: typer.Context, job: _Job) -> None:
    """Show a run: its rounds, its clients, and what became of every task."""
    console = Console(highlight=False)
    with _opened(context.obj, job) as journal:
        rounds = journal.rounds()
        console.print(_rounds(rounds))
        console.print(_clients(rounds))
        for row in rounds:
            for phase in row.phases:
                for line in _remarks(row, phase):
                    console.print(line, soft_wrap=True)
        for kept in journal.checkpoints():
            words = ", ".join(kept.kept_as)
            console.print(
                f"model of round {kept.server_round} ({words}): {kept.path}", soft_wrap=True
            )


@runs_app.command()
def replay(
    context: typer.Context,
    job: _Job,
    app: Annotated[
        str | None,
        typer.Option(help="The server's app, where its strategy is not FedAvg: module:name."),
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", help="key=value for the app, as then.")
    ] = None,
) -> None:
    """Aggregate the rounds again whose replies were kept, and compare: the same bits, or not."""
    strategy: Strategy = FedAvg()
    if app is not None:
        parts = load_server(app, ServerContext(job, pairs("--config", config or [])))
        strategy = build_server(parts)[0].strategy
    differ = 0
    with _opened(context.obj, job) as journal:
        for each in replay_run(journal, strategy):
            differ += not each.same
            verdict = "same bits" if each.same else "DIFFERS"
            typer.echo(
                f"round {each.server_round}: {each.replies} replies, model {each.replayed[:16]} "
                f"(recorded {each.recorded[:16]}): {verdict}"
            )
    if differ:
        typer.echo("other bits: was another strategy used, or its code changed?", err=True)
        raise typer.Exit(ExitCode.CHECK_FAILED)


@contextmanager
def _opened(runs_dir: Path, job: str) -> Iterator[Journal]:
    folder = runs_dir / job
    if job not in {run.folder.name for run in list_runs(runs_dir)}:
        raise NoSuchRun(job, runs_dir)
    journal = Journal.open(folder, create=False)
    try:
        yield journal
    finally:
        journal.close()


def _when(run: RunInfo) -> str:
    if run.started_unix_ms is None:
        return ""
    return datetime.fromtimestamp(run.started_unix_ms / 1000).isoformat(" ", timespec="seconds")


def _rounds(rounds: list[RoundRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("round", "phase", "asked", "accepted", "failed", "silent", "late", "loss", "s"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for row in rounds:
        loss = "" if row.loss is None else f"{row.loss:.4g}"
        for phase in row.phases:
            words = Counter(outcome.word for outcome in phase.outcomes)
            failed = words[Word.FAILED] + words[Word.REJECTED]
            silent = words[Word.SILENT] + words[Word.UNROUTABLE]
            state = "open" if phase.open else f"{phase.seconds:.2f}"
            late = sum(each.times for each in phase.late)
            counts = (phase.asked, words[Word.ACCEPTED], failed, silent, late)
            table.add_row(str(row.server_round), phase.phase.value, *map(str, counts), loss, state)
        if not row.phases:
            table.add_row(str(row.server_round), "", "", "", "", "", "", loss, "")
    return table


def _clients(rounds: list[RoundRow]) -> Table:
    """How often each client got which word."""
    words: dict[str, Counter[Word]] = {}
    for row in rounds:
        for phase in row.phases:
            for outcome in phase.outcomes:
                words.setdefault(outcome.client_id, Counter())[outcome.word] += 1
    shown = [word for word in Word if any(counts[word] for counts in words.values())]
    table = Table(box=None, pad_edge=False)
    table.add_column("client")
    for word in shown:
        table.add_column(word.value, justify="right")
    for client_id, counts in sorted(words.items()):
        table.add_row(client_id, *(str(counts[word]) for word in shown))
    return table


def _remarks(row: RoundRow, phase: PhaseRow) -> Iterator[str]:
    where = f"round {row.server_round} {phase.phase.value}"
    for outcome in phase.outcomes:
        if outcome.word is not Word.ACCEPTED:
            yield f"{where}: {outcome.client_id} {outcome.word.value}: {outcome.reason}"
    for late in phase.late:
        yield f"{where}: {late.client_id} {late.word.value}, {late.seconds:.1f} s"
