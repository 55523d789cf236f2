"""``flmq runs export``: a run's models and history as files that other tools read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from flmq.cli.completing import complete_job
from flmq.cli.model import MODEL, made_by, origin_of
from flmq.cli.saying import hint
from flmq.cli.tables import MOST_MEASURES, defused, measured_names, write_parts, write_rounds
from flmq.common.cleaning import one_line
from flmq.common.errors import UsageError
from flmq.common.files import make_folder, replacing
from flmq.common.model_files import load_parameters, save_parameters
from flmq.common.typing import Parameters, Scalar
from flmq.journal import Journal, list_runs
from flmq.journal.opening import DATABASE
from flmq.observe.record import RoundRecord, RunRecord, load_record
from flmq.observe.recorded import recorded_runs, rows_of
from flmq.observe.runs.reading import RunOnDisk, opened_run
from flmq.server.history import History

__all__ = ["Job", "NoSuchRound", "NoSuchRun", "NotExported", "export", "opened", "run_in"]

Job = Annotated[
    str,
    typer.Argument(help="Name of the job.", show_default=False, autocompletion=complete_job),
]


class NoSuchRun(UsageError):
    """There is no run of that name in the folder of runs."""

    def __init__(self, job: str, folder: Path) -> None:
        """Name both."""
        super().__init__(f"there is no run {job!r} in {folder}: `flmq runs` lists those there are")


class NoSuchRound(UsageError):
    """The model of a round is not kept."""

    def __init__(self, job: str, server_round: int | None, kept: Sequence[int]) -> None:
        """Name the job, the round (None: the last), and the rounds whose models are kept."""
        which = "no model" if server_round is None else f"no model of round {server_round}"
        there = (
            f"those of rounds {', '.join(map(str, kept))} are there" if kept else "none is there"
        )
        super().__init__(
            f"job {job!r} keeps {which}: {there}; a server started with --keep-every 1 keeps all"
        )


class NotExported(UsageError):
    """A run cannot be exported to such a file."""


@contextmanager
def opened(runs_dir: Path, job: str) -> Iterator[Journal]:
    """Open the journal of a run.

    Raises:
        NoSuchRun: there is none.
    """
    folder = runs_dir / job
    if job not in {run.folder.name for run in list_runs(runs_dir)}:
        raise NoSuchRun(job, runs_dir)
    journal = Journal.open(folder, create=False)
    try:
        yield journal
    finally:
        journal.close()


def run_in(runs_dir: Path, job: str, stack: ExitStack) -> RunOnDisk:
    """Read a run, without writing into it, for as long as ``stack`` is open.

    Raises:
        NoSuchRun: there is none.
    """
    folder = runs_dir / job
    is_one = Path(job).name == job and job not in (".", "..")
    if not is_one or not any((folder / each).exists() for each in (DATABASE, "history.json")):
        raise NoSuchRun(job, runs_dir)
    return stack.enter_context(opened_run(folder))


def export(
    context: typer.Context,
    job: Job,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="The file: .npz or .safetensors for a model, .csv for what was measured. With "
            "--csv: the folder, if not the run's own.",
            show_default=False,
        ),
    ] = None,
    server_round: Annotated[
        int | None,
        typer.Option("--round", help="The round whose model it is; the last one, if not given."),
    ] = None,
    as_csv: Annotated[
        bool,
        typer.Option("--csv", help="Write rounds.csv and parts.csv: rounds, and clients in them."),
    ] = False,
) -> None:
    """Write a run's model, or what was measured in it, to files that other tools read."""
    runs_dir: Path = context.obj
    if as_csv:
        if server_round is not None:
            raise NotExported("--csv is of all rounds: drop --round")
        _export_tables(runs_dir, job, runs_dir / job if to is None else to)
        return
    if to is None:
        raise NotExported("say what to write: --to FILE, or --csv")
    if to.suffix.lower() == ".csv" and server_round is not None:
        raise NotExported("a .csv holds all rounds: drop --round")
    journals = {run.folder.name for run in list_runs(runs_dir)}
    recorded = {run.folder.name: run for run in recorded_runs(runs_dir, journals)}
    if job in recorded:
        record = recorded[job].record or load_record(runs_dir / job)
        _export_recorded(record, runs_dir / job, server_round, to)
    else:
        with opened(runs_dir, job) as journal:
            _export_journal(journal, job, server_round, to)
    typer.echo(f"written: {to}")


def _export_tables(runs_dir: Path, job: str, folder: Path) -> None:
    """Write rounds.csv and parts.csv; a long run is read twice, a few rounds at a time."""
    with ExitStack() as stack:
        names = measured_names(run_in(runs_dir, job, stack).rounds)
    kept, left_out = names[:MOST_MEASURES], names[MOST_MEASURES:]
    try:
        make_folder(folder)
        with ExitStack() as stack:
            lines = write_rounds(run_in(runs_dir, job, stack).rounds, kept, folder / "rounds.csv")
        with ExitStack() as stack:
            rounds = _Counting(run_in(runs_dir, job, stack).rounds)
            parts = write_parts(rounds, folder / "parts.csv")
    except OSError as error:
        raise NotExported(f"{folder} cannot be written: {error.strerror or error}") from error
    typer.echo(f"written: {folder / 'rounds.csv'} ({lines} rounds)")
    typer.echo(f"written: {folder / 'parts.csv'} ({parts} parts)")
    if left_out:
        hint(f"{len(left_out)} measurements have no column, {one_line(left_out[0])} first")
    if rounds.left_out:
        hint(f"{rounds.left_out} parts are not in the record of this run, which has no journal")


class _Counting:
    """Rounds, with a count of the outcomes that a record lacks."""

    def __init__(self, rounds: Iterable[RoundRecord]) -> None:
        self._rounds = rounds
        self.left_out = 0

    def __iter__(self) -> Iterator[RoundRecord]:
        for each in self._rounds:
            self.left_out += each.outcomes_left_out
            yield each


def _export_journal(journal: Journal, job: str, server_round: int | None, to: Path) -> None:
    if to.suffix.lower() == ".csv":
        last = journal.last_checkpoint()
        return _write_csv(History() if last is None else History.from_dict(last.history), to)
    kept = {info.server_round: info for info in journal.checkpoints()}
    number = max(kept, default=0) if server_round is None else server_round
    if number not in kept:
        raise NoSuchRound(job, server_round, sorted(kept))
    parameters = journal.parameters(kept[number].digest)
    made, clients = made_by(journal.rounds(), number)
    return _write(parameters, to, origin_of(job, parameters, made, clients))


def _export_recorded(record: RunRecord, folder: Path, server_round: int | None, to: Path) -> None:
    """Export a run without a journal: it has its final model alone."""
    if to.suffix.lower() == ".csv":
        return _write_csv(_history_of(record), to)
    file, last = folder / f"{MODEL}.npz", max((r.server_round for r in record.rounds), default=0)
    if server_round not in (None, last) or not file.exists():
        raise NoSuchRound(record.job, server_round, [last] if file.exists() else [])
    parameters = load_parameters(file)
    changed = [each.server_round for each in record.rounds if each.changed]
    _, clients = made_by(rows_of(record), made := max(changed, default=0))
    return _write(parameters, to, origin_of(record.job, parameters, made, clients))


def _history_of(record: RunRecord) -> History:
    history = History()
    for each in record.rounds:
        history.add_metrics_distributed_fit(each.server_round, each.fit_metrics)
        if each.evaluate_loss is not None:
            history.add_loss_distributed(each.server_round, each.evaluate_loss)
            history.add_metrics_distributed(each.server_round, each.evaluate_metrics)
        if each.loss is None:
            continue
        if each.evaluate_loss is None and each.evaluate.asked:
            history.add_loss_distributed(each.server_round, each.loss)
            history.add_metrics_distributed(each.server_round, each.metrics)
        else:
            history.add_loss_centralized(each.server_round, each.loss)
            history.add_metrics_centralized(each.server_round, each.metrics)
    return history


def _write(parameters: Parameters, to: Path, metadata: dict[str, str]) -> None:
    try:
        save_parameters(parameters, to, metadata)
    except OSError as error:
        raise NotExported(f"{to} cannot be written: {error.strerror or error}") from error


def _write_csv(history: History, to: Path) -> None:
    """Write a line for each number: the round, who measured it and when, its name, its value."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("round", "measured", "name", "value"))
    rows: list[tuple[int, str, str, Scalar]] = []
    for measured, losses, metrics in (
        ("fit", [], history.metrics_distributed_fit),
        ("evaluate", history.losses_distributed, history.metrics_distributed),
        ("server", history.losses_centralized, history.metrics_centralized),
    ):
        rows += [(number, measured, "loss", loss) for number, loss in losses]
        for name, series in metrics.items():
            rows += [(number, measured, name, value) for number, value in series]
    for number, measured, name, value in sorted(rows, key=lambda row: row[:3]):
        shown = value if isinstance(value, int | float) else defused(str(value))
        table.writerow((number, measured, defused(name), shown))
    try:
        with replacing(to) as file:
            file.write(text.getvalue().encode())
    except OSError as error:
        raise NotExported(f"{to} cannot be written: {error.strerror or error}") from error
