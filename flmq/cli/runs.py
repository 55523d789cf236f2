"""``flmq runs``: list runs, show what became of each task, and replay rounds bit for bit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flmq.cli.commands import Commands
from flmq.cli.comparing import compare
from flmq.cli.exit_codes import ExitCode
from flmq.cli.export import Job, NoSuchRun, export, opened, run_in
from flmq.cli.listing import listed, table_of
from flmq.cli.load import load_server
from flmq.cli.model import MODEL
from flmq.cli.options import RunsDir, pairs
from flmq.cli.report import report
from flmq.cli.saying import hint, say_json
from flmq.cli.view.buffers import draw_buffers
from flmq.common.cleaning import one_line
from flmq.common.errors import UsageError
from flmq.common.typing import Scalar
from flmq.journal import list_runs
from flmq.journal.records import CheckpointInfo, LateReply, PhaseRow, RoundRow
from flmq.observe.events import RoundClosed, RoundCounts
from flmq.observe.measures import figure, measures_of
from flmq.observe.record import load_record, record_lines, round_text
from flmq.observe.recorded import recorded_runs, rows_of
from flmq.round import Outcome, TaskOutcome
from flmq.server.components import build_server
from flmq.server.context import ServerContext
from flmq.server.job.late import EXPIRED
from flmq.server.lifecycle.replay import replay as replay_run
from flmq.server.resumption.best_model import best_file, measured
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.strategy import Strategy, UnexpectedState

__all__ = ["MisplacedJson", "NoSuchRun", "OtherStrategy", "runs_app"]

runs_app = typer.Typer(
    cls=Commands, help="The runs that servers keep.", invoke_without_command=True
)
runs_app.command()(export)
runs_app.command()(compare)
runs_app.command()(report)

_DEFAULT = Path("runs")
_WORDS = (
    "accepted",
    "carried",
    "failed",
    "rejected",
    "late",
    "expired",
    "no answer",
    "unroutable",
    "duplicate",
)
"""Outcomes in the order of their columns."""


class MisplacedJson(UsageError):
    """``--json`` stands before the command that it is for."""


class OtherStrategy(UsageError):
    """A run is to be replayed with another strategy than its own."""

    def __init__(self, job: str, error: UnexpectedState) -> None:
        """Name the job, the strategy of the replay, and the state that it does not accept."""
        super().__init__(
            f"job {job!r} has state of its strategy ({', '.join(error.names)}), which "
            f"{error.strategy} cannot take: name the server's app, as in --app app:server"
        )


@runs_app.callback()
def runs(
    context: typer.Context,
    runs_dir: RunsDir = _DEFAULT,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: a list of the runs.")
    ] = False,
) -> None:
    """List runs by name: whether they are running, unfinished, finished or damaged."""
    if as_json:
        say_json()
    if context.invoked_subcommand is not None:
        if as_json:
            named = context.invoked_subcommand
            raise MisplacedJson(f"give --json after `{named}`: before it, it is of the list")
        context.obj = runs_dir
        return
    if as_json:
        typer.echo(json.dumps(listed(runs_dir), indent=2))
        return
    table = table_of(runs_dir)
    if table.row_count == 0:
        hint(f"no runs in {runs_dir}")
        return
    _console().print(table)


@runs_app.command()
def show(
    context: typer.Context,
    job: Job,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: all that history.json has.")
    ] = False,
) -> None:
    """Show a run: its rounds, its clients, and what became of every task."""
    if as_json:
        say_json()
        with ExitStack() as stack:
            run = run_in(context.obj, job, stack)
            for line in record_lines(run.head, map(round_text, run.rounds)):
                typer.echo(line, nl=False)
        return
    console = _console()
    folder = context.obj / job
    journals = {run.folder.name for run in list_runs(context.obj)}
    for recorded in recorded_runs(context.obj, journals):
        if recorded.folder == folder:
            record = recorded.record or load_record(folder)
            _show_rounds(console, rows_of(record))
            left_out = sum(each.outcomes_left_out for each in record.rounds)
            if left_out:
                said = f"{left_out} outcomes of clients are left out: the run has no journal"
                console.print(said, soft_wrap=True)
            _show_early(console, record.stopped_early)
            _show_model(console, folder)
            return
    with opened(context.obj, job) as journal:
        _show_rounds(console, journal.rounds())
        _show_early(console, str((journal.finished or {}).get("stopped_early", "")))
        final = (folder / f"{MODEL}.npz").exists()
        for kept in journal.checkpoints():
            # The last one is the final model, saved for numpy.
            words = ", ".join(word for word in kept.kept_as if word != "last" or not final)
            if "best" in kept.kept_as and journal.best_by is not None:
                _show_best(console, folder, kept, journal.best_by)
            if words:
                said = f"model of round {kept.server_round} ({words}): {kept.path}"
                console.print(said, soft_wrap=True)
    _show_model(console, folder)


def _show_rounds(console: Console, rounds: list[RoundRow]) -> None:
    console.print(_rounds(rounds))
    for table in _measures(rounds, console.width):
        console.print(table)
    for table in draw_buffers(rounds):
        console.print(table)
    console.print(_clients(rounds))
    for row in rounds:
        for phase in row.phases:
            for line in _remarks(row, phase):
                console.print(line, soft_wrap=True)


def _show_early(console: Console, stopped_early: str) -> None:
    if stopped_early:
        console.print(f"stopped early: {one_line(stopped_early)}", soft_wrap=True)


def _show_best(console: Console, folder: Path, best: CheckpointInfo, by: str) -> None:
    where = best_file(folder) or best.path
    said = f"best model: round {best.server_round}, {one_line(by)} {figure(measured(best, by))}"
    console.print(f"{said}: {where}", soft_wrap=True)


def _show_model(console: Console, folder: Path) -> None:
    path = folder / f"{MODEL}.npz"
    if path.exists():
        console.print(f"final model: {path}", soft_wrap=True)


@runs_app.command()
def replay(
    context: typer.Context,
    job: Job,
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
    with opened(context.obj, job) as journal:
        try:
            for each in replay_run(journal, strategy):
                differ += not each.same
                verdict = "same bits" if each.same else "DIFFERS"
                typer.echo(
                    f"round {each.server_round}: {each.replies} replies, "
                    f"model {each.replayed[:16]} (recorded {each.recorded[:16]}): {verdict}"
                )
        except UnexpectedState as error:
            raise OtherStrategy(job, error) from error
    if differ:
        typer.echo(
            "other bits: was another strategy used (--app names the server's app), or its code "
            "changed?",
            err=True,
        )
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _console() -> Console:
    """Reasons and names are not ours: their brackets are no markup."""
    return Console(highlight=False, markup=False)


def _rounds(rounds: list[RoundRow]) -> Table:
    """Return a table with a line per phase: how many tasks had which outcome."""
    counts = {
        (row.server_round, number): _words(phase)
        for row in rounds
        for number, phase in enumerate(row.phases)
    }
    shown = [name for name in _WORDS if any(each[name] for each in counts.values())]
    table = Table(box=None, pad_edge=False)
    for column in ("round", "phase", "asked", *shown, "loss", "s"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for row in rounds:
        loss = "" if row.loss is None else f"{row.loss:.4g}"
        for number, phase in enumerate(row.phases):
            words = counts[row.server_round, number]
            state = "open" if phase.open else f"{phase.seconds:.2f}"
            cells = (phase.asked, *(words[name] for name in shown))
            table.add_row(str(row.server_round), phase.phase.value, *map(str, cells), loss, state)
        if not row.phases:
            table.add_row(str(row.server_round), *[""] * (len(shown) + 2), loss, "")
    return table


def _measures(rounds: list[RoundRow], width: int) -> Iterator[Table]:
    """Return measurements besides the loss, a line per round, in several tables if too wide."""
    measured = {row.server_round: _measured(row) for row in rounds}
    columns: dict[str, int] = {}
    for measures in measured.values():
        for name, value in measures.items():
            columns[name] = max(columns.get(name, len(name)), len(figure(value)))
    left = list(columns)
    while left:
        names, room = [left.pop(0)], width - len("round") - 1
        room -= columns[names[0]] + 1
        while left and columns[left[0]] + 1 <= room:
            room -= columns[left[0]] + 1
            names.append(left.pop(0))
        table = Table(box=None, pad_edge=False)
        for name in ("round", *names):
            table.add_column(name, justify="right", no_wrap=True)
        for server_round, measures in measured.items():
            table.add_row(str(server_round), *(figure(measures.get(name)) for name in names))
        yield table


def _measured(row: RoundRow) -> dict[str, Scalar]:
    said = row.summary
    closed = RoundClosed(
        row.server_round,
        0,
        RoundCounts(),
        RoundCounts(),
        row.loss,
        row.metrics,
        0.0,
        0,
        0,
        fit_metrics=said.get("fit_metrics") or {},
        evaluate_loss=said.get("evaluate_loss"),
        evaluate_metrics=said.get("evaluate_metrics") or {},
    )
    return {name: value for name, value in measures_of(closed).items() if name != "loss"}


def _clients(rounds: list[RoundRow]) -> Table:
    """Return a table of how often each client had which outcome."""
    words: dict[str, Counter[str]] = {}
    for row in rounds:
        for phase in row.phases:
            for client_id, name, times in _said(phase):
                words.setdefault(client_id, Counter())[name] += times
    shown = [name for name in _WORDS if any(counts[name] for counts in words.values())]
    table = Table(box=None, pad_edge=False)
    table.add_column("client")
    for name in shown:
        table.add_column(name, justify="right")
    for client_id, counts in sorted(words.items()):
        table.add_row(client_id, *(str(counts[name]) for name in shown))
    return table


def _remarks(row: RoundRow, phase: PhaseRow) -> Iterator[str]:
    """Yield a line for each task that was not simply accepted, and for each repeated reply."""
    where = f"round {row.server_round} {phase.phase.value}"
    heard = {late.client_id for late in phase.late if late.outcome is Outcome.LATE}
    for outcome in phase.outcomes:
        if outcome.outcome is Outcome.ACCEPTED or outcome.client_id in heard:
            continue
        reason = f": {one_line(outcome.reason)}" if outcome.reason else ""
        yield f"{where}: {outcome.client_id} {_name(outcome)}{reason}"
    for late in sorted(phase.late, key=lambda each: (each.client_id, each.outcome.value)):
        yield f"{where}: {late.client_id} {_late(late)}"
    if phase.carried:
        yield f"{where}: {phase.carried} late replies of earlier rounds count in it"


def _late(late: LateReply) -> str:
    """Return text on a late or duplicate reply."""
    if late.outcome is Outcome.DUPLICATE:
        return "duplicate" if late.times == 1 else f"duplicate, {late.times} times"
    if _expired(late):
        return f"{one_line(late.note)}, reported {late.seconds:.1f} s after the round closed"
    if late.into is not None:
        fate = f"counts in round {late.into}"
    elif late.waits:
        fate = "waits for the next round"
    else:
        fate = f"dropped: {one_line(late.note)}" if late.note else "dropped"
    return f"late by {late.seconds:.1f} s, {fate}"


def _words(phase: PhaseRow) -> Counter[str]:
    """Return how many tasks of a phase, and replies to it, had which outcome."""
    words: Counter[str] = Counter()
    for _, name, times in _said(phase):
        words[name] += times
    words["carried"] += phase.carried
    return words


def _said(phase: PhaseRow) -> Iterator[tuple[str, str, int]]:
    """Yield client, outcome and count: of tasks, and of late and duplicate replies.

    A client that was late, or that started its task too late, did answer: that replaces "no
    answer".
    """
    heard = {late.client_id for late in phase.late if late.outcome is Outcome.LATE}
    for outcome in phase.outcomes:
        if (
            outcome.outcome not in (Outcome.SILENT, Outcome.UNROUTABLE)
            or outcome.client_id not in heard
        ):
            yield outcome.client_id, _name(outcome), 1
    for late in phase.late:
        yield late.client_id, EXPIRED if _expired(late) else late.outcome.value, late.times


def _name(outcome: TaskOutcome) -> str:
    """Return a task's outcome in one word."""
    if outcome.outcome is Outcome.FAILED and outcome.reason.lower().startswith(f"{EXPIRED}:"):
        return EXPIRED
    return "no answer" if outcome.outcome is Outcome.SILENT else outcome.outcome.value


def _expired(late: LateReply) -> bool:
    return late.note.startswith(EXPIRED)
