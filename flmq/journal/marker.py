"""``run.json`` marks a folder as a run's, even if its database is empty.

Without it, an emptied database would look like a run that has not begun, and begin anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from flmq import __version__
from flmq.common.exhausted import unless_exhausted
from flmq.journal.errors import JournalDamaged, NewerJournal
from flmq.journal.files import replace
from flmq.journal.schema import FORMAT

__all__ = ["MARKER", "Marker", "read_marker", "write_marker"]

MARKER = "run.json"


@dataclass(frozen=True, slots=True)
class Marker:
    """Which run the folder belongs to."""

    job: str
    run_id: str
    created_unix_ms: int
    format: int = FORMAT
    flmq_version: str = __version__


def write_marker(folder: Path, marker: Marker) -> None:
    """Write the marker durably; raises `JournalNotWritable`."""
    text = json.dumps(asdict(marker), indent=2) + "\n"
    replace(folder / MARKER, [text.encode()])


def read_marker(folder: Path) -> Marker | None:
    """Return the folder's marker; None if it has none.

    Raises:
        JournalDamaged: it cannot be read.
        NewerJournal: it was written by a newer flmq.
    """
    path = folder / MARKER
    try:
        with unless_exhausted(path):
            stored = json.loads(path.read_text(encoding="utf-8"))
        format_ = int(stored["format"])
        if format_ > FORMAT:
            raise NewerJournal(path, format_, FORMAT)
        return Marker(
            str(stored["job"]),
            str(stored["run_id"]),
            int(stored["created_unix_ms"]),
            format_,
            str(stored["flmq_version"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise JournalDamaged(path, f"cannot be read ({error!r})") from error
