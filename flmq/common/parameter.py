"""Parameters as arrays and as bytes: one ``.npy`` byte string per tensor, never a pickle.

The header is read by a strict grammar of our own and compared with the length of what follows
before anything is allocated: bytes from a peer can promise terabytes, or a pickle. Source: NumPy,
"NPY format" (``numpy.lib.format``), versions 1.0 and 2.0.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from flmq.common.buffers import LARGE, new_buffer
from flmq.common.dtypes import NARROW_FLOATS, descr_of, is_narrow, little_endian
from flmq.common.errors import InvalidReturnValue, MalformedMessage
from flmq.common.tensor_names import names_problem, tensor_called
from flmq.common.typing import NDArray, NDArrays, Parameters

__all__ = [
    "TensorSpec",
    "bytes_to_ndarray",
    "named_like",
    "ndarray_to_bytes",
    "ndarrays_to_bytes",
    "ndarrays_to_parameters",
    "ndarrays_to_views",
    "parameters_of",
    "parameters_problem",
    "parameters_to_ndarrays",
    "tensor_spec",
    "with_parameters",
    "without_parameters",
]

_Message = TypeVar("_Message")

_TENSOR_TYPE = "numpy.ndarray"
_KINDS = "biufc"
_ALLOWED = "booleans, integers, floats (also bfloat16 and float8) and complex numbers"
# NumPy's headers are shorter, whatever the shape; refuse longer ones, as numpy.load does.
_MAX_HEADER = 10_000
_KNOWN_HEADERS = 1024
_HEADER = re.compile(
    rf"\{{\s*'descr'\s*:\s*'(?P<descr>[<>|=]?[biufc]\d{{1,2}}|{'|'.join(NARROW_FLOATS)})'\s*,"
    r"\s*'fortran_order'\s*:\s*(?P<fortran>True|False)\s*,"
    r"\s*'shape'\s*:\s*\((?P<shape>\s*|\s*\d{1,19}\s*,\s*|\s*\d{1,19}(?:\s*,\s*\d{1,19})+\s*,?\s*)\)"
    r"\s*,?\s*\}\s*",
    re.ASCII,
)
_TYPE_LOST = re.compile(r"\{\s*'descr'\s*:\s*'([<|]V[12]|<f1)'", re.ASCII)
"""What ``numpy.save`` writes for bfloat16 and float8."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and dtype of a tensor. The dtype is that of its numbers, in whichever byte order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        """Forget the byte order."""
        if not self.dtype.isnative:
            object.__setattr__(self, "dtype", self.dtype.newbyteorder("="))

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @classmethod
    def of(cls, tensor: npt.NDArray[Any]) -> TensorSpec:
        """Return the spec of ``tensor``."""
        return cls(tuple(tensor.shape), tensor.dtype)

    def __str__(self) -> str:
        """Return text such as ``float32[64, 10]``."""
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where and how the values lie in a tensor's byte string."""

    spec: TensorSpec
    dtype: np.dtype[Any]
    """With its byte order."""
    fortran: bool
    offset: int


def ndarrays_to_parameters(ndarrays: NDArrays, names: Iterable[str] = ()) -> Parameters:
    """Convert arrays to `Parameters`, keeping order, shapes and dtypes; ``names`` are theirs.

    Raises:
        InvalidReturnValue: an array holds something other than numbers; names which.
        InvalidTensorNames: names are repeated, missing, or no printable text.
    """
    names = tuple(names)
    return Parameters(list(ndarrays_to_bytes(ndarrays, names)), _TENSOR_TYPE, names)


def ndarrays_to_bytes(ndarrays: NDArrays, names: Sequence[str] = ()) -> Iterator[bytes]:
    """Yield each array as `ndarray_to_bytes` does, made when it is taken; ``names`` are for errors.

    Raises:
        InvalidReturnValue: an array holds something other than numbers; names which.
    """
    return _each(ndarrays, ndarray_to_bytes, names)


def named_like(parameters: Parameters, model: Parameters) -> Parameters:
    """Return ``parameters`` with the names of ``model``, if they have none and as many tensors."""
    if parameters.names or not model.names or len(parameters.tensors) != len(model.names):
        return parameters
    in_file = getattr(parameters, "renamed", None)  # they are not to be mapped for good
    if in_file is not None:
        named: Parameters = in_file(model.names)
        return named
    return Parameters(parameters.tensors, parameters.tensor_type, model.names)


def parameters_to_ndarrays(parameters: Parameters, *, copy: bool = True) -> NDArrays:
    """Convert `Parameters` to arrays; ``copy`` as in `bytes_to_ndarray`.

    As in Flower, the tensor type is ignored: the bytes themselves say what they are.

    Raises:
        MalformedMessage: a tensor is not one whole ``.npy`` byte string; names which.
    """
    ndarrays = []
    for index, tensor in enumerate(parameters.tensors):
        try:
            ndarrays.append(bytes_to_ndarray(tensor, copy=copy))
        except MalformedMessage as error:
            called = tensor_called(index, parameters.names)
            raise MalformedMessage(f"{called}: {error}") from error
    return ndarrays


def ndarrays_to_views(ndarrays: NDArrays, names: Iterable[str] = ()) -> Parameters:
    """Convert as `ndarrays_to_parameters` does, but without copying large tensors to ``bytes``.

    Large tensors become read-only memoryviews, in place of the contract's bytes: only for sending.

    Raises:
        InvalidReturnValue: an array holds something other than numbers; names which.
    """
    names = tuple(names)
    return Parameters(list(_each(ndarrays, _to_view, names)), _TENSOR_TYPE, names)


def ndarray_to_bytes(ndarray: NDArray) -> bytes:
    """Convert one array (any shape, also 0-d and empty; any memory layout) to ``.npy`` bytes.

    Byte for byte what ``numpy.save`` writes of little-endian numbers, with the values copied once.
    bfloat16 and float8, whose type ``numpy.save`` loses, are named in the header, so that
    ``numpy.load`` reads them where ml_dtypes is imported.

    Raises:
        InvalidReturnValue: the array holds something other than numbers, or is a masked array.
    """
    return b"".join(_npy(ndarray))


def _to_view(ndarray: NDArray) -> bytes | memoryview:
    header, values = _npy(ndarray)
    if len(header) + values.nbytes < LARGE:
        return header + bytes(values)
    tensor = new_buffer(len(header) + values.nbytes)
    tensor[: len(header)] = header
    tensor[len(header) :] = values
    return tensor.toreadonly()


def _npy(ndarray: NDArray) -> tuple[bytes, memoryview]:
    """Return the header and the values, not copied if they are contiguous."""
    array = _as_array(ndarray)
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    values = array.T if fortran else np.ascontiguousarray(array)
    header = _written(descr_of(array.dtype), fortran, array.shape)
    return header, values.reshape(-1).view(np.uint8).data


@lru_cache(maxsize=_KNOWN_HEADERS)
def _written(descr: str, fortran: bool, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    said = {"descr": descr, "fortran_order": fortran, "shape": shape}
    npy.write_array_header_1_0(header, said)
    return header.getvalue()


def _each(
    ndarrays: NDArrays, convert: Callable[[NDArray], Any], names: Sequence[str]
) -> Iterator[Any]:
    for index, ndarray in enumerate(ndarrays):
        try:
            yield convert(ndarray)
        except InvalidReturnValue as error:
            called = names[index] if index < len(names) else index
            raise InvalidReturnValue(f"parameter {called}: {error}") from error


def bytes_to_ndarray(tensor: bytes | bytearray | memoryview, *, copy: bool = True) -> NDArray:
    """Convert ``.npy`` bytes to an array of the dtype, shape and memory order that was sent.

    With ``copy`` (the default), the array is writable and owns its memory; without, it is a
    read-only view of ``tensor``, which must then not change.

    Raises:
        MalformedMessage: not one whole ``.npy`` byte string of numbers and nothing else.
    """
    layout = _layout(tensor)
    spec = layout.spec
    flat = np.frombuffer(tensor, layout.dtype, prod(spec.shape), layout.offset)
    try:
        view = flat.reshape(spec.shape, order="F" if layout.fortran else "C")
    except (ValueError, OverflowError) as error:
        raise MalformedMessage(f"numpy has no arrays of shape {spec.shape}: {error}") from error
    if copy and flat.nbytes < LARGE:
        return view.copy(order="K")
    if copy:
        own = np.frombuffer(new_buffer(flat.nbytes), layout.dtype)
        own[:] = flat
        return own.reshape(spec.shape, order="F" if layout.fortran else "C")
    view.flags.writeable = False
    return view


def tensor_spec(tensor: bytes | bytearray | memoryview) -> TensorSpec:
    """Return shape and dtype of ``.npy`` bytes; the length is checked, but no value is read.

    Raises:
        MalformedMessage: not one whole ``.npy`` byte string of numbers and nothing else.
    """
    return _layout(tensor).spec


def _as_array(value: Any) -> NDArray:
    """Return ``value`` as a little-endian array of numbers, or raise an error that says why not."""
    if np.ma.isMaskedArray(value):
        raise InvalidReturnValue(
            "a masked array cannot be sent, for its mask would be lost: give a plain array, for "
            "instance with .filled(0)"
        )
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InvalidReturnValue(
            f"{type(value).__name__} cannot be made a numpy array ({error}); give numpy arrays"
        ) from error
    if array.dtype.kind not in _KINDS and not is_narrow(array.dtype):
        raise InvalidReturnValue(
            f"{type(value).__name__} of dtype {array.dtype} cannot be sent; arrays may hold "
            f"{_ALLOWED}: convert it first, for instance with .astype(numpy.float32)"
        )
    return little_endian(array)


def _layout(tensor: bytes | bytearray | memoryview) -> _Layout:
    """Read the header and check that exactly the promised values follow."""
    header, offset = _header(tensor)
    spec, dtype, fortran = _read(header)
    promised, present = spec.size * dtype.itemsize, len(tensor) - offset
    if promised != present:
        raise MalformedMessage(
            f".npy header promises {promised} bytes (shape {spec.shape}, {dtype}), {present} follow"
        )
    return _Layout(spec, dtype, fortran, offset)


@lru_cache(maxsize=_KNOWN_HEADERS)
def _read(header: str) -> tuple[TensorSpec, np.dtype[Any], bool]:
    """Return what a header says; all replies to a model have the same ones."""
    if _TYPE_LOST.match(header):
        raise MalformedMessage(
            "the .npy header does not say which type it is of, for numpy.save does not know "
            "bfloat16 and float8: write such arrays with flmq.common.ndarray_to_bytes"
        )
    match = _HEADER.fullmatch(header)
    if match is None:
        raise MalformedMessage(
            f"not a .npy header of {_ALLOWED}, as numpy writes it: {header[:120]!r}"
        )
    shape = tuple(int(word) for word in match["shape"].split(",") if word.strip())
    dtype = _dtype(match["descr"])
    return TensorSpec(shape, dtype), dtype, match["fortran"] == "True"


def _header(tensor: bytes | bytearray | memoryview) -> tuple[str, int]:
    """Return the header's text, and the position where the values begin."""
    start = bytes(tensor[:12])
    if start[:6] != npy.MAGIC_PREFIX:
        hint = " (a pickle is never loaded)" if start[:1] == b"\x80" else ""
        raise MalformedMessage(f"not .npy bytes: begins with {start[:6]!r}{hint}")
    if start[6:8] not in (b"\x01\x00", b"\x02\x00"):
        raise MalformedMessage(f".npy version {start[6:8].hex('.')} is not 1.0 or 2.0")
    begin = 10 if start[6] == 1 else 12
    length = int.from_bytes(start[8:begin], "little")
    if len(start) < begin or length > min(_MAX_HEADER, len(tensor) - begin):
        raise MalformedMessage(f".npy header is truncated or oversize ({length} bytes)")
    return bytes(tensor[begin : begin + length]).decode("latin-1"), begin + length


def _dtype(descr: str) -> np.dtype[Any]:
    """Return the dtype that a header names; the grammar admits only numeric ones."""
    try:
        return np.dtype(descr)
    except TypeError as error:
        raise MalformedMessage(f"numpy here has no dtype {descr!r}") from error


def parameters_problem(parameters: object) -> str | None:
    """Return why ``parameters`` are not valid `Parameters` and what to do, or None if they are."""
    if not isinstance(parameters, Parameters):
        return (
            f"a {type(parameters).__name__} as parameters, not Parameters: make them with "
            "flmq.common.ndarrays_to_parameters(list_of_arrays)"
        )
    for index, tensor in enumerate(parameters.tensors):
        if not isinstance(tensor, bytes | bytearray | memoryview):
            return (
                f"a {type(tensor).__name__} as tensor {index}, not bytes: make parameters with "
                "flmq.common.ndarrays_to_parameters(list_of_arrays)"
            )
    problem = names_problem(parameters.names, len(parameters.tensors))
    return None if problem is None else f"parameters with {problem}"


def parameters_of(message: object) -> Parameters | None:
    """Return the ``parameters`` of a ``message``; None if it has no `Parameters`."""
    parameters = getattr(message, "parameters", None)
    return parameters if isinstance(parameters, Parameters) and is_dataclass(message) else None


def with_parameters(message: _Message, parameters: Parameters) -> _Message:
    """Return a copy of ``message`` with these ``parameters``.

    ``message`` is a dataclass; one without `Parameters` is returned unchanged.
    """
    if parameters_of(message) is None:
        return message
    whole: Any = message
    copy: _Message = replace(whole, parameters=parameters)
    return copy


def without_parameters(message: _Message) -> _Message:
    """Return a copy of ``message`` with empty ``parameters``, as they are kept elsewhere.

    ``message`` is a dataclass; one without `Parameters` is returned unchanged.
    """
    parameters = parameters_of(message)
    if parameters is None:
        return message
    return with_parameters(message, Parameters([], parameters.tensor_type))
