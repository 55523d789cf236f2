"""Errors of storing a run in its folder, besides the general ones of `flmq.common`.

::

    StoredDataError
    ├── JournalDamaged       a file is missing, or does not hold what was stored
    ├── NewerJournal         written by a newer flmq
    ├── JournalGone          the folder was deleted or moved while its server was running
    └── NotKept              deleted, as the run was not told to keep it
    RunError
    ├── JournalNotWritable   no space, no permission, no lock
    └── Fenced               another server took charge
    InvalidReturnValue
    └── UnsavableState       a strategy's state holds a value that cannot be stored
"""

from __future__ import annotations

from pathlib import Path

from flmq.common.errors import InvalidReturnValue, RunError, StoredDataError

__all__ = [
    "Fenced",
    "JournalDamaged",
    "JournalGone",
    "JournalNotWritable",
    "NewerJournal",
    "NotKept",
    "UnsavableState",
]


class JournalDamaged(StoredDataError):
    """A file of the run is missing, or does not hold what was written to it."""

    def __init__(self, path: Path, what: str) -> None:
        """Name the file and ``what`` is wrong with it."""
        self.path = path
        super().__init__(
            f"{path}: {what}. Nothing was changed. Put the run's folder back from a copy, or move "
            "it away (--fresh does that) to begin the job anew from round 1"
        )


class NewerJournal(StoredDataError):
    """The run was written by an flmq with a newer format of the journal."""

    def __init__(self, path: Path, found: int, supported: int) -> None:
        """Name both formats."""
        self.path = path
        self.found = found
        self.supported = supported
        super().__init__(
            f"{path}: has format {found}, written by a newer flmq; this one reads up to format "
            f"{supported}. Nothing was changed. Install the newer flmq to go on with this run"
        )


class JournalGone(StoredDataError):
    """The run's folder was deleted or moved while its server was running."""

    def __init__(self, folder: Path) -> None:
        """Name the run's folder."""
        self.folder = folder
        super().__init__(
            f"{folder}: was deleted, moved or replaced while its server ran, so nothing more can "
            "be recorded there. Put it back as it was and start the server again to go on; without "
            "it the job begins anew from round 1"
        )


class NotKept(StoredDataError):
    """The requested data was deleted once its round was over."""


class JournalNotWritable(RunError):
    """The run's folder cannot be written; its content is unchanged."""

    def __init__(self, path: Path, why: str) -> None:
        """Name the file and the cause."""
        self.path = path
        super().__init__(
            f"{path}: cannot be written: {why}. What was recorded before is intact: see to space "
            "and permissions there, and start the server again to go on"
        )


class Fenced(RunError):
    """Another server took charge of this job."""

    def __init__(self, job: str, ours: int, theirs: int) -> None:
        """Name the job and both fencing epochs."""
        self.job = job
        self.ours = ours
        self.theirs = theirs
        super().__init__(
            f"another server took charge of job {job} (epoch {theirs}, ours was {ours}); this one "
            "stops, having changed nothing"
        )


class UnsavableState(InvalidReturnValue):
    """A strategy's state holds a value that cannot be stored exactly."""

    def __init__(self, where: str, value: object, advice: str = "") -> None:
        """Say ``where`` in the state the value is, with ``advice``."""
        self.where = where
        self.kind = type(value).__qualname__
        super().__init__(
            f"{where} is a {self.kind}, which cannot be saved: "
            + (
                advice
                or "state_dict may hold None, bool, int, float, str, bytes, numpy arrays and "
                "scalars, random generators, and dicts, lists and tuples of these"
            )
        )
