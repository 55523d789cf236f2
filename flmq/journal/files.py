"""The journal's files: complete after a crash, or absent; errors name the cause."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from flmq.common import files
from flmq.common.exhausted import cause_of
from flmq.journal.errors import JournalNotWritable

__all__ = [
    "make_folder",
    "move",
    "remove_temporaries",
    "replace",
    "replace_all",
    "writing",
]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert OSErrors of writing ``path`` to `JournalNotWritable`."""
    try:
        yield
    except OSError as error:
        raise JournalNotWritable(path, cause_of(error)) from error


def make_folder(path: Path) -> None:
    """Create ``path`` and missing parents durably."""
    with writing(path):
        for folder in files.make_folder(path):
            files.fsync_folder(folder.parent)


def replace(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file of ``parts`` at ``path`` atomically: a crash leaves the old or the new.

    Raises:
        JournalNotWritable: it cannot be written; the old file is left.
    """
    with writing(path), files.replacing(path) as file:
        for part in parts:
            file.write(part)


def replace_all(contents: Mapping[Path, Iterable[bytes | memoryview]]) -> None:
    """Put a file at each path, all of one folder, as `replace` would.

    They are written first and flushed then, so that many small files wait for the disk together.

    Raises:
        JournalNotWritable: one cannot be; at each path is the old or the new, complete.
    """
    temporaries: dict[Path, Path] = {}
    try:
        for path, parts in contents.items():
            temporaries[path] = files.temporary_of(path)
            with writing(path), files.create_private(temporaries[path]) as file:
                for part in parts:
                    file.write(part)
        for path, temporary in temporaries.items():
            with writing(path):
                files.fsync_file(temporary)
                temporary.replace(path)
        for folder in {path.parent for path in contents}:
            with writing(folder):
                files.fsync_folder(folder)
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Flush ``source`` to disk and rename it to ``target``, on the same file system.

    Raises:
        JournalNotWritable: it cannot be moved.
    """
    with writing(target):
        files.move(source, target)


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Remove half-written files left in ``folder`` by writers that died, of ``name`` if given."""
    with writing(folder):
        files.remove_temporaries(folder, name)
