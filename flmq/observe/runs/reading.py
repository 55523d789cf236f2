"""A run's folder as a record, read without writing into it: from its journal, or its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flmq.common.errors import StoredDataError
from flmq.journal.opening import DATABASE
from flmq.journal.reader import JournalReader
from flmq.journal.reading import open_to_read
from flmq.observe.record import RoundRecord, RunRecord
from flmq.observe.runs.journalled import completed, journalled_rounds
from flmq.observe.runs.streamed import stream_record

__all__ = ["RunOnDisk", "opened_run"]


@dataclass(frozen=True, slots=True)
class RunOnDisk:
    """A run as it is now."""

    head: RunRecord
    """Its record without its rounds."""
    rounds: Iterator[RoundRecord]
    """The rounds that are over, as they are read; the journal's, where there is one."""
    has_journal: bool


@contextmanager
def opened_run(folder: Path) -> Iterator[RunOnDisk]:
    """Read the run in ``folder``, whose server may be at work meanwhile.

    Raises:
        StoredDataError: it has neither journal nor record, or one of them is damaged.
    """
    if not (folder / DATABASE).exists():
        head, rounds = stream_record(folder)
        yield RunOnDisk(head, rounds, has_journal=False)
        return
    journal = open_to_read(folder)
    try:
        yield RunOnDisk(_head(folder, journal), _rounds(folder, journal), has_journal=True)
    finally:
        journal.close()


def _rounds(folder: Path, journal: JournalReader) -> Iterator[RoundRecord]:
    """Yield the journal's rounds, each with what only the record knows of it."""
    kept = _kept(folder)
    beside = next(kept, None)
    for each in journalled_rounds(journal):
        while beside is not None and beside.server_round < each.server_round:
            beside = next(kept, None)
        is_it = beside is not None and beside.server_round == each.server_round
        yield completed(each, beside if is_it else None)


def _kept(folder: Path) -> Iterator[RoundRecord]:
    """Yield what the record can say: it is for people, and a damaged one no reason to stop."""
    try:
        _, rounds = stream_record(folder)
        yield from rounds
    except StoredDataError:
        return


def _head(folder: Path, journal: JournalReader) -> RunRecord:
    try:
        head, _ = stream_record(folder)
    except StoredDataError:
        head = _head_of(journal)
    ending = journal.finished
    return head if ending is None else _ended(head, ending)


def _head_of(journal: JournalReader) -> RunRecord:
    """Return what a journal alone knows of its run."""
    if journal.identity is None:
        raise StoredDataError(f"the run in {journal.folder} has not begun: start its server")
    strategy = journal.fingerprint().get("strategy", "").rpartition(".")[2]
    started = datetime.fromtimestamp(journal.started_unix_ms / 1000, UTC)
    return RunRecord(
        journal.identity.name,
        strategy,
        "",
        journal.rounds_done,
        started.isoformat(timespec="seconds"),
        journal.about,
    )


def _ended(head: RunRecord, ending: dict[str, Any]) -> RunRecord:
    """Return ``head`` with how the run ended, if its server was killed before it wrote that."""
    if head.seconds is not None:
        return head
    return replace(
        head,
        seconds=ending.get("seconds"),
        final_loss=ending.get("loss"),
        stopped_early=str(ending.get("stopped_early", "")),
    )
