"""Parameters that stay in a file, mapped on access so that they take no memory in between."""

from __future__ import annotations

import contextlib
import io
import itertools
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, cast

from flmq.common.logger import logger
from flmq.common.parameter import ndarrays_to_bytes, ndarrays_to_views
from flmq.common.typing import NDArrays, Parameters
from flmq.wire.blobs import BlobRef, refer, refer_file, tensors_of

__all__ = [
    "LARGE_MODEL",
    "FileParameters",
    "each_tensor",
    "kept_parameters",
    "parameters_to_send",
    "ref_of",
]

LARGE_MODEL = 128 << 20
"""Bytes from which a new model is written to a file as it is made, instead of filling memory."""


class FileParameters(Parameters):
    """Parameters of a blob in a file. Copies and pickles of it are plain `Parameters` in memory."""

    def __init__(self, path: Path, ref: BlobRef) -> None:
        """Represent the blob of ``ref`` in the file at ``path``."""
        self.tensor_type = ref.tensor_type
        self.names = ref.names
        self.path = path
        self.ref = ref
        self._own: list[bytes] | None = None
        self._ends: list[int] | None = None
        """Where each tensor ends, in bytes, once one was asked for."""

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
        if self._ends is None:
            self._ends = list(accumulate(self.ref.lengths))
        end = self._ends[index]
        return memoryview(self.map()).toreadonly()[end - self.ref.lengths[index] : end]

    def renamed(self, names: tuple[str, ...]) -> FileParameters:
        """Return the same with these names for its tensors; the file is not copied."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.names, other.ref = names, replace(self.ref, names=names)
        return other

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


def each_tensor(parameters: Parameters) -> Iterator[bytes | memoryview]:
    """Yield the tensors; of those in a file, each is mapped by itself, and let go with its view."""
    if isinstance(parameters, FileParameters) and parameters.untouched:
        return (parameters.tensor(index) for index in range(len(parameters.ref.lengths)))
    return iter(parameters.tensors)


def ref_of(parameters: Parameters) -> BlobRef:
    """Return the reference of ``parameters``: that of a file is known, others are read for it."""
    if isinstance(parameters, FileParameters) and parameters.untouched:
        return parameters.ref
    return refer(parameters)


class _OwnFile:
    """A temporary file, removed when this object is no longer held."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="flmq-model-")
        self.path = Path(name)
        self.file = os.fdopen(descriptor, "r+b", buffering=0)
        weakref.finalize(self, _remove, self.path, self.file)


def _remove(path: Path, file: BinaryIO | io.FileIO) -> None:
    file.close()
    with contextlib.suppress(OSError):  # on Windows, while it is mapped
        path.unlink(missing_ok=True)


class _KeptParameters(FileParameters):
    """Parameters whose file goes with them."""

    def __init__(self, own: _OwnFile, ref: BlobRef) -> None:
        super().__init__(own.path, ref)
        self._file = own


def kept_parameters(tensors: Iterable[bytes], large: int | None = None) -> Parameters:
    """Return a new model of numpy tensors: in memory, or, if it is large, in a file of its own.

    The tensors are taken one at a time. ``large`` is in bytes (None: `LARGE_MODEL`). A file that
    cannot be written, for want of space for instance, is done without.
    """
    limit, source, held, total = LARGE_MODEL if large is None else large, iter(tensors), [], 0
    for tensor in source:
        held.append(tensor)
        total += len(tensor)
        if total >= limit:
            return _in_file(held, source)
    return Parameters(held, "numpy.ndarray")


def parameters_to_send(
    ndarrays: NDArrays,
    names: tuple[str, ...] = (),
    called: tuple[str, ...] | None = None,
    large: int | None = None,
) -> Parameters:
    """Convert arrays to `Parameters` without a second large model in memory; only for sending.

    Large tensors become views, and a large model goes to a file, a tensor at a time. Errors call
    tensors as ``called`` (None: as ``names``). ``large`` is as in `kept_parameters`.

    Raises:
        InvalidReturnValue: an array holds something other than numbers; names which.
    """
    called = names if called is None else called
    if sum(array.nbytes for array in ndarrays) < (LARGE_MODEL if large is None else large):
        sent = ndarrays_to_views(ndarrays, called)
        return Parameters(sent.tensors, sent.tensor_type, names)
    kept = kept_parameters(ndarrays_to_bytes(ndarrays, called), large)
    if isinstance(kept, FileParameters):
        return kept.renamed(names)
    return Parameters(kept.tensors, kept.tensor_type, names)


def _in_file(held: list[bytes], source: Iterator[bytes]) -> Parameters:
    """Write ``held``, which is emptied, and the tensors to come."""
    lengths: list[int] = []
    current: list[bytes] = []
    own = None
    held.reverse()  # so that what is written can be dropped from its end
    try:
        own = _OwnFile()
        for tensor in itertools.chain(_popped(held), source):
            current[:] = [tensor]
            view = memoryview(tensor)
            while view:
                view = view[own.file.write(view) :]
            lengths.append(len(tensor))
            current.clear()
        ref = refer_file(own.file, "numpy.ndarray", lengths)
        own.file.close()
    except OSError as error:
        logger.warning("a new model is kept in memory, for its file cannot be written: %s", error)
        written = [] if own is None else _read_back(own, lengths)
        return Parameters([*written, *current, *_popped(held), *source], "numpy.ndarray")
    return _KeptParameters(own, ref)


def _popped(held: list[bytes]) -> Iterator[bytes]:
    while held:
        yield held.pop()


def _read_back(own: _OwnFile, lengths: list[int]) -> list[bytes]:
    own.file.seek(0)
    return [own.file.read(length) for length in lengths]
