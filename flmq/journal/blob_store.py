"""Parameters on the disk and who needs them: put first, named by a record then, swept at last.

Each method that takes a transaction works within that of its caller.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterable, Mapping
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

__all__ = ["BlobStore"]

_INLINE_STATE_BYTES = 4096
_STATE = "flmq.state"
"""Tensor type of a blob that holds the large arrays of a strategy's state."""

_NAMED = """
SELECT digest FROM checkpoints WHERE digest IS NOT NULL
UNION SELECT state_digest FROM checkpoints WHERE state_digest IS NOT NULL
UNION SELECT state_digest FROM phases WHERE state_digest IS NOT NULL
UNION SELECT digest FROM asks WHERE digest IS NOT NULL
"""


class BlobStore:
    """The files of a run, of which its database knows. Thread-safe."""

    def __init__(self, folder: Path, seal: Seal) -> None:
        """Use the run in ``folder``; check what its database says by ``seal``."""
        self.blobs = BlobFolder(folder)
        self.replies = ReplyFolder(folder)
        self._seal = seal
        self._lock = threading.Lock()
        # What no record names yet, but will: a sweep spares it.
        self._put: dict[str, BlobRef] = {}
        self._adopted: set[Path] = set()
        self._loaded: weakref.WeakValueDictionary[str, MappedParameters] = (
            weakref.WeakValueDictionary()
        )

    # -- parameters by digest ----------------------------------------------------------------

    def put(self, parameters: Parameters, ref: BlobRef | None = None) -> BlobRef:
        """Have ``parameters`` on the disk; raises `JournalNotWritable`."""
        ref = refer(parameters) if ref is None else ref
        with self._lock:
            self._put[ref.digest] = ref
        self.blobs.put(ref, parameters)
        return ref

    def name(self, tx: sqlite3.Connection, digests: Iterable[str]) -> None:
        """Have the database know blobs that one of its records is about to name.

        Raises:
            RuntimeError: one was not put.
        """
        for digest in digests:
            with self._lock:
                ref = self._put.get(digest)
            if ref is not None:
                outline: dict[str, StateValue] = {"type": ref.tensor_type, "lengths": ref.lengths}
                tx.execute(
                    "INSERT OR IGNORE INTO blobs (digest, outline) VALUES (?, ?)",
                    (digest, self._seal.pack(outline, "blob")),
                )
            elif tx.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone() is None:
                raise RuntimeError(
                    f"parameters {digest[:16]}... were not put: put_parameters first"
                )

    def named(self, digests: Iterable[str]) -> None:
        """Take note that records name these now, durably."""
        with self._lock:
            for digest in digests:
                self._put.pop(digest, None)

    def ref(self, tx: sqlite3.Connection, digest: str) -> BlobRef:
        """What the blob looks like; raises `JournalDamaged` where the database does not know it."""
        with self._lock:
            ref = self._put.get(digest)
        if ref is not None:
            return ref
        row = tx.execute("SELECT outline FROM blobs WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise JournalDamaged(self.blobs.path(digest), "is not known to the journal")
        outline = self._seal.unpack(row[0])
        return BlobRef(digest, outline["type"], outline["lengths"])

    def load(self, ref: BlobRef) -> MappedParameters:
        """The blob's parameters: the same object as long as somebody holds it."""
        loaded = self._loaded.get(ref.digest)
        if loaded is None or not loaded.untouched:
            loaded = self.blobs.load(ref)
            self._loaded[ref.digest] = loaded
        return loaded

    # -- a strategy's state ------------------------------------------------------------------

    def put_state(self, state: Mapping[str, StateValue], name: str) -> tuple[bytes, str | None]:
        """A state as its record holds it, and the digest of its large arrays.

        Raises:
            UnsavableState: a value that cannot be stored exactly; names it.
        """
        document, arrays = split_state(state, _INLINE_STATE_BYTES, name)
        if not arrays:
            return self._seal.close(document), None
        ref = self.put(Parameters(cast("list[bytes]", arrays), _STATE))
        return self._seal.close(document), ref.digest

    def load_state(
        self, tx: sqlite3.Connection, stored: bytes, digest: str | None
    ) -> dict[str, Any]:
        """The state that `put_state` stored."""
        document = self._seal.open(stored)
        if digest is None:
            return join_state(document, ())
        return join_state(document, self.load(self.ref(tx, digest)).tensors)

    # -- replies -----------------------------------------------------------------------------

    def adopt(self, task_id: str, path: Path, ref: BlobRef) -> Path:
        """Take over a reply's file; raises `JournalNotWritable`."""
        with self._lock:
            self._adopted.add(self.replies.path(task_id, ref))
        return self.replies.adopt(task_id, ref, path)

    def release(self, task_id: str, ref: BlobRef) -> None:
        """Spare a reply's file no longer."""
        with self._lock:
            self._adopted.discard(self.replies.path(task_id, ref))

    def contributed(self, contributions: Iterable[Contribution]) -> None:
        """Take note that records name these replies now, durably."""
        with self._lock:
            for what in contributions:
                if what.blob is not None:
                    self._adopted.discard(self.replies.path(what.task_id, what.blob))

    # -- cleaning up -------------------------------------------------------------------------

    def sweep(self, tx: sqlite3.Connection, replies: Iterable[Path]) -> None:
        """Remove the files that no record names; ``replies`` are those that some do."""
        with self._lock:
            needed, spared = set(self._put), set(self._adopted)
        needed.update(digest for (digest,) in tx.execute(_NAMED))
        for (digest,) in tx.execute("SELECT digest FROM blobs").fetchall():
            if digest not in needed:
                tx.execute("DELETE FROM blobs WHERE digest = ?", (digest,))
        self.blobs.sweep(needed)
        self.replies.sweep(spared.union(replies))

    def tidy(self) -> None:
        """Remove what writers that died left half-written."""
        remove_temporaries(self.blobs.folder)
        remove_temporaries(self.replies.folder)
