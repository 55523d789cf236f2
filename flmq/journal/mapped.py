"""Parameters that the journal keeps on disk: verified once, mapped on access."""

from __future__ import annotations

import mmap
from pathlib import Path

from flmq.common.exhausted import unless_exhausted
from flmq.common.typing import Parameters
from flmq.journal.errors import JournalDamaged
from flmq.wire import BlobRef, FileParameters, refer

__all__ = ["MappedParameters"]


class MappedParameters(FileParameters):
    """Parameters in a file of the journal."""

    def __init__(self, path: Path, ref: BlobRef) -> None:
        """Represent the blob of ``ref`` in the file at ``path``, which is read and verified.

        Raises:
            JournalDamaged: the file is missing, or holds something else.
            SystemExhausted: it cannot be mapped for want of descriptors or memory.
        """
        super().__init__(path, ref)
        found = refer(Parameters(self.tensors, ref.tensor_type)).digest
        if found != ref.digest:
            raise JournalDamaged(path, f"has digest {found[:16]}..., not {ref.digest[:16]}...")

    def map(self) -> mmap.mmap | bytes:
        """Map the file into memory.

        Raises:
            JournalDamaged: the file is missing, or has another length.
            SystemExhausted: it cannot be mapped for want of descriptors or memory.
        """
        try:
            with unless_exhausted(self.path):
                size = self.path.stat().st_size
                if size != self.ref.total:
                    raise JournalDamaged(self.path, f"has {size} bytes, not {self.ref.total}")
                return super().map()
        except OSError as error:
            raise JournalDamaged(self.path, f"cannot be read: {error.strerror}") from error
