"""A client's control variates in its state folder, each under its digest.

Which of them counts is decided by the server, and only later: a reply may be lost, rejected, or
asked for again. So a new variate is written beside the one that it was made from, and none is
overwritten. The next task names the one that counts, and the others go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from numpy.lib import format as npy

from flmq.common.errors import StoredDataError, UsageError
from flmq.common.files import replacing
from flmq.common.parameter import TensorSpec, ndarray_to_bytes
from flmq.common.typing import NDArrays

__all__ = ["LostVariate", "NoStateFolder", "StoredVariates"]

_SUFFIX = ".variate"


class NoStateFolder(UsageError):
    """A client of SCAFFOLD has no folder of its own."""

    def __init__(self) -> None:
        """Say how to give one."""
        super().__init__(
            "SCAFFOLD's clients keep a control variate from round to round, and this one has no "
            "folder for it: start it with --state-dir (state_dir=... in Python), and hand "
            "context.state_dir on; in a simulation, hand on a folder of your own for each client"
        )


class LostVariate(StoredDataError):
    """The variate that counts for this client is not in its folder any more."""

    def __init__(self, folder: Path, digest: str, problem: str) -> None:
        """Name the folder, the variate, and what is wrong."""
        self.folder = folder
        self.digest = digest
        super().__init__(
            f"{folder}: the control variate {digest[:12]}, which the server's contains, {problem}: "
            "bring the folder back, or begin all variates at zero with SCAFFOLD(restart_lost=True)"
        )


class StoredVariates:
    """The variates of one client for one job."""

    def __init__(self, state_dir: Path | None) -> None:
        """Keep them in ``state_dir``, that of the client's context.

        Raises:
            NoStateFolder: it is None.
        """
        if state_dir is None:
            raise NoStateFolder
        self._folder = state_dir / "scaffold"

    def load(self, digest: str, like: NDArrays) -> NDArrays:
        """Return the variate of this digest, with the tensors' shapes and dtypes of ``like``.

        Raises:
            LostVariate: it is not there, damaged, or of other tensors.
        """
        try:
            with self._path(digest).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise LostVariate(self._folder, digest, "is damaged")
                file.seek(0)
                variate = [npy.read_array(file, allow_pickle=False) for _ in like]
        except (FileNotFoundError, NotADirectoryError):
            raise LostVariate(self._folder, digest, "is not there") from None
        except (OSError, ValueError) as error:
            raise LostVariate(self._folder, digest, f"cannot be read ({error})") from error
        if [TensorSpec.of(tensor) for tensor in variate] != [
            TensorSpec.of(tensor) for tensor in like
        ]:
            raise LostVariate(self._folder, digest, "is of other tensors than the model")
        return variate

    def store(self, variate: NDArrays, beside: str) -> str:
        """Write a variate, durably, and return its digest; only it and ``beside`` are kept.

        Raises:
            OSError: it cannot be written.
        """
        summed = hashlib.sha256()
        for tensor in _pieces(variate):
            summed.update(tensor)
        digest = summed.hexdigest()
        with replacing(self._path(digest), tidy=True) as file:
            file.writelines(_pieces(variate))
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if path.stem not in (digest, beside):
                path.unlink(missing_ok=True)
        return digest

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}{_SUFFIX}"


def _pieces(variate: NDArrays) -> Iterator[bytes]:
    """Yield each tensor as an ``.npy`` file, as `numpy.lib.format` reads them one after another."""
    return map(ndarray_to_bytes, variate)
