"""Parameters on disk, and which records need them: written, then named, at last swept.

Methods that take a transaction run within that of their caller.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from flmq.common.typing import Parameters
from flmq.journal.blobs import BlobFolder, ReplyFolder
from flmq.journal.errors import JournalDamaged
from flmq.journal.files import remove_temporaries
from flmq.journal.mapped import MappedParameters
from flmq.journal.records import Contribution
from flmq.journal.schema import Seal
from flmq.journal.state import StateValue, join_state, split_state
from flmq.wire import BlobRef, refer

__all__ = ["BlobStore", "state_digests"]

_INLINE_STATE_BYTES = 4096
_STATE = "flmq.state"
"""Tensor type of a blob that holds a large array of a strategy's state; before format 3, all."""

_NAME = "INSERT OR IGNORE INTO blobs (digest, outline) VALUES (?, ?)"
_RENAME = "INSERT OR REPLACE INTO blobs (digest, outline) VALUES (?, ?)"
_MODELS = """
SELECT digest FROM checkpoints WHERE digest IS NOT NULL
UNION SELECT digest FROM asks WHERE digest IS NOT NULL
"""
_STATES = """
SELECT state_digest FROM checkpoints WHERE state_digest IS NOT NULL
UNION SELECT state_digest FROM phases WHERE state_digest IS NOT NULL
"""


def state_digests(digests: str | None) -> list[str]:
    """Return the blobs that a record's ``state_digest`` names: separated by spaces, in order."""
    return [] if digests is None else digests.split()


class _Arrays:
    """The large arrays of a state by number, each mapped alone: the system allows only so many."""

    def __init__(
        self, refs: Iterable[BlobRef], load: Callable[[BlobRef], MappedParameters]
    ) -> None:
        self._places = [(ref, index) for ref in refs for index in range(len(ref.lengths))]
        self._load = load
        self._loaded: MappedParameters | None = None

    def __getitem__(self, number: int, /) -> memoryview:
        ref, index = self._places[number]
        if self._loaded is None or self._loaded.ref != ref:
            self._loaded = self._load(ref)
        return self._loaded.tensor(index)


class BlobStore:
    """The blob files of a run, as known to its database. Thread-safe."""

    def __init__(self, folder: Path, seal: Seal) -> None:
        """Use the run in ``folder``; verify what its database says with ``seal``."""
        self.blobs = BlobFolder(folder)
        self.replies = ReplyFolder(folder)
        self._seal = seal
        self._lock = threading.Lock()
        # Not yet named by a record, but about to be: a sweep must keep them.
        self._put: dict[str, BlobRef] = {}
        self._adopted: set[Path] = set()
        self._loaded: weakref.WeakValueDictionary[str, MappedParameters] = (
            weakref.WeakValueDictionary()
        )

    # -- parameters by digest ----------------------------------------------------------------

    def put(self, parameters: Parameters, ref: BlobRef | None = None) -> BlobRef:
        """Write ``parameters`` to disk; raises `JournalNotWritable`."""
        ref = refer(parameters) if ref is None else ref
        with self._lock:
            self._put[ref.digest] = ref
        self.blobs.put([(ref, parameters)])
        return ref

    def name(self, tx: sqlite3.Connection, digests: Iterable[str]) -> None:
        """Enter blobs into the database that one of its records is about to name.

        Raises:
            RuntimeError: one was not put.
        """
        for digest in digests:
            with self._lock:
                ref = self._put.get(digest)
            if ref is not None:
                outline: dict[str, StateValue] = {"type": ref.tensor_type, "lengths": ref.lengths}
                if ref.names:
                    outline["names"] = ref.names
                # The digest is of the bytes alone: the same bytes may get names later.
                insert = _RENAME if ref.names else _NAME
                tx.execute(insert, (digest, self._seal.pack(outline, "blob")))
            elif tx.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone() is None:
                raise RuntimeError(
                    f"parameters {digest[:16]}... were not put: put_parameters first"
                )

    def named(self, digests: Iterable[str]) -> None:
        """Mark blobs as named by durable records, so that they need no protection from a sweep."""
        with self._lock:
            for digest in digests:
                self._put.pop(digest, None)

    def ref(self, tx: sqlite3.Connection, digest: str) -> BlobRef:
        """Return the blob's reference; raises `JournalDamaged` if the database lacks it."""
        with self._lock:
            ref = self._put.get(digest)
        if ref is not None:
            return ref
        row = tx.execute("SELECT outline FROM blobs WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise JournalDamaged(self.blobs.path(digest), "is not known to the journal")
        outline = self._seal.unpack(row[0])
        names = outline.get("names", ())
        return BlobRef(digest, outline["type"], outline["lengths"], names=names)

    def load(self, ref: BlobRef) -> MappedParameters:
        """Return the blob's parameters; the same object while anybody holds it."""
        loaded = self._loaded.get(ref.digest)
        if loaded is None or not loaded.untouched or loaded.names != ref.names:
            loaded = self.blobs.load(ref)
            self._loaded[ref.digest] = loaded
        return loaded

    # -- a strategy's state ------------------------------------------------------------------

    def put_state(self, state: Mapping[str, StateValue], name: str) -> tuple[bytes, str | None]:
        """Return a state as stored in its record, and what `state_digests` reads, or None.

        Each large array is a blob of its own, written unless it is there: one that is as it was at
        the last checkpoint costs nothing but its digest.

        Raises:
            UnsavableState: a value that cannot be stored exactly; names it.
            JournalNotWritable: an array cannot be written.
        """
        document, arrays = split_state(state, _INLINE_STATE_BYTES, name)
        blobs = [Parameters([cast(bytes, array)], _STATE) for array in arrays]
        refs = [refer(blob) for blob in blobs]
        with self._lock:
            self._put.update((ref.digest, ref) for ref in refs)
        self.blobs.put(zip(refs, blobs, strict=True))
        return self._seal.close(document), " ".join(ref.digest for ref in refs) or None

    def load_state(
        self, tx: sqlite3.Connection, stored: bytes, digests: str | None
    ) -> dict[str, Any]:
        """Return the state that `put_state` stored, or an earlier flmq in one blob."""
        refs = [self.ref(tx, digest) for digest in state_digests(digests)]
        return join_state(self._seal.open(stored), _Arrays(refs, self.load))

    # -- replies -----------------------------------------------------------------------------

    def adopt(self, task_id: str, path: Path, ref: BlobRef) -> Path:
        """Take over a reply's file; raises `JournalNotWritable`."""
        with self._lock:
            self._adopted.add(self.replies.path(task_id, ref))
        return self.replies.adopt(task_id, ref, path)

    def release(self, task_id: str, ref: BlobRef) -> None:
        """Stop protecting a reply's file from a sweep."""
        with self._lock:
            self._adopted.discard(self.replies.path(task_id, ref))

    def contributed(self, contributions: Iterable[Contribution]) -> None:
        """Mark these replies as named by durable records."""
        with self._lock:
            for what in contributions:
                if what.blob is not None:
                    self._adopted.discard(self.replies.path(what.task_id, what.blob))

    # -- cleaning up -------------------------------------------------------------------------

    def sweep(self, tx: sqlite3.Connection, replies: Iterable[Path]) -> None:
        """Remove the files that no record names; ``replies`` are the named reply files."""
        with self._lock:
            needed, spared = set(self._put), set(self._adopted)
        needed.update(digest for (digest,) in tx.execute(_MODELS))
        for (digests,) in tx.execute(_STATES):
            needed.update(state_digests(digests))
        for (digest,) in tx.execute("SELECT digest FROM blobs").fetchall():
            if digest not in needed:
                tx.execute("DELETE FROM blobs WHERE digest = ?", (digest,))
        self.blobs.sweep(needed)
        self.replies.sweep(spared.union(replies))

    def tidy(self) -> None:
        """Remove the half-written files of writers that died."""
        remove_temporaries(self.blobs.folder)
        remove_temporaries(self.replies.folder)
