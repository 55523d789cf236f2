"""Models in files that other tools read: ``.npz`` of numpy, and ``.safetensors`` of Hugging Face.

Both are written tensor by tensor from where a model lies, in memory or in a mapped file; neither
holds code. Formats: NumPy, "NPY format"; Hugging Face, "Safetensors format".
"""

from __future__ import annotations

import contextlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, TensorSpec, safe_open, serialize_file

from flmq.common.dtypes import NARROW_FLOATS
from flmq.common.errors import InvalidReturnValue, InvalidTensorNames, MalformedMessage, UsageError
from flmq.common.files import create_private, make_folder, move, replacing, temporary_of
from flmq.common.machine import available_memory
from flmq.common.parameter import (
    bytes_to_ndarray,
    ndarray_to_bytes,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.tensor_names import tensor_called
from flmq.common.typing import NDArray, Parameters

__all__ = [
    "ModelNotWritable",
    "UnreadableModelFile",
    "load_parameters",
    "save_parameters",
]

_NUMPY = "numpy.ndarray"
_ORDER = "flmq.tensors"
"""Metadata: the tensors' names in the model's order; safetensors sorts them by dtype and name."""
_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    **{f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    "C64": "<c8",
    "BF16": NARROW_FLOATS["bfloat16"],
    "F8_E4M3": NARROW_FLOATS["float8_e4m3fn"],
    "F8_E4M3FNUZ": NARROW_FLOATS["float8_e4m3fnuz"],
    "F8_E5M2": NARROW_FLOATS["float8_e5m2"],
    "F8_E5M2FNUZ": NARROW_FLOATS["float8_e5m2fnuz"],
}
"""By their name in a safetensors file."""
_NAMES = {np.dtype(dtype).name for dtype in _DTYPES.values()}


class UnreadableModelFile(UsageError):
    """A file holds no model that can be read."""

    def __init__(self, path: Path, why: object) -> None:
        """Name the file, and why not."""
        self.path = path
        super().__init__(f"{path} cannot be read as a model: {why}")


class ModelNotWritable(UsageError):
    """A model does not fit a file's format."""

    def __init__(self, path: Path, why: str) -> None:
        """Name the file, and why not."""
        self.path = path
        super().__init__(f"{path} is not written: {why}")


def load_parameters(path: Path | str) -> Parameters:
    """Read a model from an ``.npz`` or ``.safetensors`` file, with the names of its tensors.

    Tensors come in the model's order from files that flmq wrote, and in the file's from others.

    Raises:
        UnreadableModelFile: there is no such file, it is damaged, or holds something else.
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise UnreadableModelFile(path, _formats())
    try:
        return read(path)
    except OSError as error:
        raise UnreadableModelFile(path, error.strerror or error) from error
    except (MalformedMessage, InvalidReturnValue, InvalidTensorNames, ValueError) as error:
        raise UnreadableModelFile(path, error) from error
    except MemoryError as error:
        raise UnreadableModelFile(path, "it does not fit into memory") from error


def save_parameters(
    parameters: Parameters, path: Path | str, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a model to an ``.npz`` or ``.safetensors`` file; ``metadata`` goes into the latter.

    Tensors without names are called ``arr_0``, ``arr_1``, ... as numpy does, and in a safetensors
    file ``tensor_0``, ..., with zeros in front so that they sort. A file that exists is replaced,
    at the end.

    Raises:
        ModelNotWritable: the format is not known, or has no place for a tensor.
        OSError: the file cannot be written.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ModelNotWritable(path, _formats())
    write(parameters, path, metadata or {})


# -- .npz ---------------------------------------------------------------------------------------


def _write_npz(parameters: Parameters, path: Path, metadata: Mapping[str, str]) -> None:
    tensors = parameters.tensors
    names = parameters.names or [f"arr_{place}" for place in range(len(tensors))]
    with replacing(path, tidy=True) as file, zipfile.ZipFile(file, "w") as archive:
        for name, tensor in zip(names, tensors, strict=True):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                if parameters.tensor_type == _NUMPY:
                    entry.write(tensor)
                else:
                    entry.write(ndarray_to_bytes(np.frombuffer(tensor, np.uint8)))


def _read_npz(path: Path) -> Parameters:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_fits(sum(info.file_size for info in archive.infolist()))
            names = tuple(info.filename.removesuffix(".npy") for info in archive.infolist())
            tensors = [archive.read(info) for info in archive.infolist()]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise MalformedMessage(f"no .npz file, or a damaged one ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # another compression, or encrypted
        raise MalformedMessage(f"an archive that numpy does not write ({error})") from error
    if names == tuple(f"arr_{place}" for place in range(len(names))):
        names = ()
    parameters = Parameters(tensors, _NUMPY, names)
    for place, tensor in enumerate(tensors):
        try:
            bytes_to_ndarray(tensor, copy=False)
        except MalformedMessage as error:
            raise MalformedMessage(f"{tensor_called(place, names)}: {error}") from error
    return parameters


def _check_fits(size: int) -> None:
    """Refuse an archive of a few kilobytes that holds more than there is memory for.

    Nothing allocates more than it says: `zipfile` reads no further.
    """
    if size > (memory := available_memory()):
        raise MalformedMessage(f"it says that it holds {size} bytes, and there are {memory} here")


# -- .safetensors -------------------------------------------------------------------------------


def _write_safetensors(parameters: Parameters, path: Path, metadata: Mapping[str, str]) -> None:
    if parameters.tensor_type != _NUMPY:
        raise ModelNotWritable(path, f"its tensors are of type {parameters.tensor_type!r}")
    arrays = parameters_to_ndarrays(parameters, copy=False)
    names = parameters.names or _numbered(len(arrays))
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.name not in _NAMES or name == "__metadata__":
            raise ModelNotWritable(
                path, f"tensor {name} is {array.dtype}, and safetensors has no such tensors"
            )
    # Copies only what is not in C order, or big-endian.
    arrays = [
        np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        for array in arrays
    ]
    specs = {
        name: TensorSpec(
            dtype=array.dtype.name,
            shape=array.shape,
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in zip(names, arrays, strict=True)
    }
    # Others read "format": transformers loads no file without it.
    said = {"format": "pt", **metadata, _ORDER: json.dumps(list(names))}
    with _named_anew(path) as temporary:
        try:
            serialize_file(specs, temporary, metadata=said)
        except SafetensorError as error:
            raise ModelNotWritable(path, str(error)) from error


@contextlib.contextmanager
def _named_anew(path: Path) -> Iterator[Path]:
    """Give the name of a file that replaces ``path`` at the end: the library opens it itself."""
    make_folder(path.parent)
    temporary = temporary_of(path)
    try:
        create_private(temporary).close()
        yield temporary
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> Parameters:
    try:
        with safe_open(path, framework="np") as file:  # checks the header, and the file's length
            said = file.metadata() or {}
    except SafetensorError as error:
        raise MalformedMessage(f"no .safetensors file, or a damaged one ({error})") from error
    with path.open("rb") as opened:
        begin = 8 + int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(begin - 8))
    header.pop("__metadata__", None)
    names = _in_order(header, said)
    data = np.memmap(path, np.uint8, "r") if header else np.empty(0, np.uint8)
    arrays = [_array(name, header[name], data[begin:]) for name in names]
    return ndarrays_to_parameters(arrays, names=() if names == _numbered(len(names)) else names)


def _array(name: str, entry: Mapping[str, Any], data: NDArray) -> NDArray:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise MalformedMessage(f"tensor {name} is {entry['dtype']}, which numpy has not")
    start, stop = entry["data_offsets"]
    array: NDArray = data[start:stop].view(dtype).reshape(entry["shape"])
    return array


def _in_order(header: Mapping[str, Any], said: Mapping[str, str]) -> list[str]:
    """Return the tensors' names in the model's order, if it is known, or in the file's."""
    names = sorted(header, key=lambda name: (header[name]["data_offsets"], name))
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        order: list[str] = json.loads(said[_ORDER]) if _ORDER in said else names
        if sorted(order) == sorted(names):
            return order
    return names


def _numbered(count: int) -> list[str]:
    width = len(str(max(0, count - 1)))
    return [f"tensor_{place:0{width}}" for place in range(count)]


_READERS: dict[str, Callable[[Path], Parameters]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}
_WRITERS: dict[str, Callable[[Parameters, Path, Mapping[str, str]], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
}


def _formats(known: Sequence[str] = tuple(_READERS)) -> str:
    return f"give a file that ends in {' or '.join(known)}"
