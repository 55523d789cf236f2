"""Files that are complete or absent after a crash, and end in a digest of themselves."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from flmq.common.errors import StoredDataError
from flmq.common.files import replacing

__all__ = ["DAMAGED", "DamagedSpoolFile", "SealedFiles"]

DAMAGED = ".damaged"
_SEAL_BYTES = hashlib.sha256().digest_size


class DamagedSpoolFile(StoredDataError):
    """A file of the spool does not hold what was written to it."""


class SealedFiles:
    """The files of one folder. Not thread-safe: their owner locks."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which exists."""
        self._folder = folder

    def write(self, name: str, parts: Iterable[bytes | memoryview], *, sealed: bool = True) -> None:
        """Write a file atomically; unless ``sealed``, its reader verifies it by other means."""
        seal = hashlib.sha256()
        with replacing(self._folder / name) as file:
            for part in parts:
                file.write(part)
                if sealed:
                    seal.update(part)
            if sealed:
                file.write(seal.digest())

    def read(self, name: str) -> bytes | None:
        """Return what was written; None if there is no such file.

        Raises:
            DamagedSpoolFile: it holds something else.
        """
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
        if len(data) < _SEAL_BYTES or hashlib.sha256(body).digest() != seal:
            raise DamagedSpoolFile(f"{name} is damaged: its digest does not match")
        return body

    def map(self, name: str, size: int) -> mmap.mmap:
        """Map a file that is not sealed.

        Raises:
            DamagedSpoolFile: it is not ``size`` bytes long.
        """
        with (self._folder / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise DamagedSpoolFile(f"{name} does not have {size} bytes")
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files in this order; missing ones are skipped."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        """Keep an unusable file under another name."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / name).replace(self._folder / (name + DAMAGED))
