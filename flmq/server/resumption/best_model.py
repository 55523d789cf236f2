"""The best model so far, as one file in the run's folder that other tools read.

The journal decides which round was best (`flmq.journal.records.KeepPolicy`) and keeps its model;
the file follows it. It is replaced at once, so that a kill leaves the last one or the new one, and
a server that resumes writes it again.
"""

from __future__ import annotations

from pathlib import Path

from flmq.common.crashpoints import crash_point
from flmq.common.logger import logger
from flmq.common.model_files import ModelNotWritable, save_parameters
from flmq.journal import Journal
from flmq.journal.records import CheckpointInfo

__all__ = ["BestModel", "best_file", "best_of", "measured"]

_BEST = "best"
_SUFFIXES = (".safetensors", ".npz")
"""A model that safetensors has no dtypes for is written as the second."""


def best_file(folder: Path) -> Path | None:
    """Return the file with the best model of the run in ``folder``; None if there is none."""
    paths = (folder / f"{_BEST}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def best_of(journal: Journal) -> CheckpointInfo | None:
    """Return the best model so far; None if none is kept as such."""
    return next((info for info in journal.checkpoints() if "best" in info.kept_as), None)


def measured(best: CheckpointInfo, by: str) -> float | None:
    """Return the measurement by which it is the best."""
    summary = best.summary
    value = summary.get("loss") if by == "loss" else (summary.get("metrics") or {}).get(by)
    return None if value is None else float(value)


class BestModel:
    """Keeps a run's best model, by the measurement ``by``, in a file of the run's folder."""

    def __init__(self, journal: Journal, by: str) -> None:
        """Write below the folder of ``journal``."""
        self._journal = journal
        self._by = by
        self._written: tuple[int, str] | None = None

    def update(self) -> None:
        """Write the best model, if it is another than before; say so in the log if it cannot be."""
        best = best_of(self._journal)
        if best is None or (best.server_round, best.digest) == self._written:
            return
        assert self._journal.identity is not None
        said = {
            "flmq.job": self._journal.identity.name,
            "flmq.round": str(best.server_round),
            "flmq.digest": best.digest,
            "flmq.best_by": self._by,
            "flmq.measured": repr(measured(best, self._by)),
        }
        crash_point("server.best_model")
        try:
            self._write(best.digest, said)
        except OSError as error:
            logger.warning(
                "the best model so far, of round %d, is not written to %s (%s): it is in the "
                "journal, and a server that is started again writes it",
                best.server_round,
                self._journal.folder,
                error,
            )
            return
        self._written = best.server_round, best.digest

    def _write(self, digest: str, said: dict[str, str]) -> None:
        """Write one file, and let go of one in the other format."""
        parameters = self._journal.parameters(digest)
        first, second = (self._journal.folder / f"{_BEST}{suffix}" for suffix in _SUFFIXES)
        try:
            save_parameters(parameters, first, said)
        except ModelNotWritable:
            save_parameters(parameters, second)
            first.unlink(missing_ok=True)
        else:
            second.unlink(missing_ok=True)
