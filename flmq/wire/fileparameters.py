"""Parameters that stay in a file, mapped on access so that they take no memory in between."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import cast

from flmq.common.typing import Parameters
from flmq.wire.blobs import BlobRef, tensors_of

__all__ = ["FileParameters"]


class FileParameters(Parameters):
    """Parameters of a blob in a file. Copies and pickles of it are plain `Parameters` in memory."""

    def __init__(self, path: Path, ref: BlobRef) -> None:
        """Represent the blob of ``ref`` in the file at ``path``."""
        self.tensor_type = ref.tensor_type
        self.names = ref.names
        self.path = path
        self.ref = ref
        self._own: list[bytes] | None = None

    @property
    def tensors(self) -> list[bytes]:
        """The tensors: views of the mapped file, or what was assigned instead."""
        if self._own is None:
            return cast("list[bytes]", tensors_of(self.ref, self.map()))
        return self._own

    @tensors.setter
    def tensors(self, tensors: list[bytes]) -> None:
        self._own = tensors

    def tensor(self, index: int) -> memoryview:
        """Return one tensor: a read-only view of a mapping of its own, closed with the view."""
        start = sum(self.ref.lengths[:index])
        return memoryview(self.map()).toreadonly()[start : start + self.ref.lengths[index]]

    @property
    def untouched(self) -> bool:
        """Whether the tensors are still those of the file."""
        return self._own is None

    def map(self) -> mmap.mmap | bytes:
        """Map the file into memory.

        Raises:
            OSError: it cannot be read.
        """
        with self.path.open("rb") as file:
            if self.ref.total == 0:
                return b""
            return mmap.mmap(file.fileno(), self.ref.total, access=mmap.ACCESS_READ)

    def __reduce__(self) -> tuple[type[Parameters], tuple[list[bytes], str, tuple[str, ...]]]:
        """Copy and pickle as plain `Parameters` in memory."""
        tensors = [bytes(tensor) for tensor in self.tensors]
        return Parameters, (tensors, self.tensor_type, self.names)

    def __repr__(self) -> str:
        """Return a short description, without the bytes."""
        name = type(self).__name__
        return f"{name}({len(self.ref.lengths)} tensors, {self.ref.total} bytes)"

    def __eq__(self, other: object) -> bool:
        """Compare the bytes and names with those of other parameters."""
        if not isinstance(other, Parameters):
            return NotImplemented
        mine = (self.tensor_type, self.names, self.tensors)
        return mine == (other.tensor_type, other.names, other.tensors)

    __hash__ = None  # type: ignore[assignment]
