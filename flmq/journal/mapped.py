"""Parameters that stay on disk: checked once, mapped when they are looked at."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import cast

from flmq.common.typing import Parameters
from flmq.journal.errors import JournalDamaged
from flmq.wire import BlobRef, refer, tensors_of

__all__ = ["MappedParameters"]


class MappedParameters(Parameters):
    """Parameters in a file that somebody else owns. Memory is free when nobody looks at them."""

    def __init__(self, path: Path, ref: BlobRef) -> None:
        """Stand for the blob of ``ref`` in the file at ``path``, whose bytes are read and checked.

        Raises:
            JournalDamaged: the file is missing, or holds something else.
        """
        self.tensor_type = ref.tensor_type
        self._path = path
        self._ref = ref
        self._own: list[bytes] | None = None
        found = refer(Parameters(self.tensors, ref.tensor_type)).digest
        if found != ref.digest:
            raise JournalDamaged(path, f"has digest {found[:16]}..., not {ref.digest[:16]}...")

    @property
    def tensors(self) -> list[bytes]:
        """The tensors: views of the file, or what was assigned instead."""
        if self._own is None:
            return cast("list[bytes]", tensors_of(self._ref, self._map()))
        return self._own

    @tensors.setter
    def tensors(self, tensors: list[bytes]) -> None:
        self._own = tensors

    @property
    def untouched(self) -> bool:
        """Whether these are still the file's tensors."""
        return self._own is None

    def _map(self) -> mmap.mmap | bytes:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                if size != self._ref.total:
                    what = f"has {size} bytes, not {self._ref.total}"
                    raise JournalDamaged(self._path, what)
                return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise JournalDamaged(self._path, f"cannot be read: {error.strerror}") from error

    def __reduce__(self) -> tuple[type[Parameters], tuple[list[bytes], str]]:
        """Copy and pickle as plain parameters in memory."""
        return Parameters, ([bytes(tensor) for tensor in self.tensors], self.tensor_type)

    def __repr__(self) -> str:
        """Say what it is, not its bytes."""
        return f"MappedParameters({len(self._ref.lengths)} tensors, {self._ref.total} bytes)"

    def __eq__(self, other: object) -> bool:
        """Equal to parameters with the same bytes."""
        if not isinstance(other, Parameters):
            return NotImplemented
        mine = (self.tensor_type, self.tensors)
        return mine == (other.tensor_type, other.tensors)

    __hash__ = None  # type: ignore[assignment]
