"""A strategy's state as bytes and back, exactly: JSON with tagged types, never a pickle.

JSON's own values are stored as such. Other types become an object with a single key that begins
with ``~``::

    {"~int": "-0x1f..."}        an int outside signed 64 bits
    {"~float": "7ff8..."}       NaN or infinity: its eight bytes
    {"~bytes": base64}          {"~tuple": [...]}        {"~dict": [[key, value], ...]}
    {"~array": {dtype, shape, fortran, bytes | blob}}    {"~scalar": {dtype, bytes}}
    {"~generator": {kind, seed, state}}                  {"~random": state}

Large arrays may be stored separately (`split_state`), so that unchanged ones are not written again.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import random
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from flmq.common.errors import StoredDataError
from flmq.journal.errors import UnsavableState

__all__ = ["Arrays", "StateValue", "decode_state", "encode_state", "join_state", "split_state"]

StateValue: TypeAlias = (
    "bool | int | float | str | bytes | np.ndarray[Any, Any] | np.generic | np.random.Generator"
    " | random.Random | Sequence[StateValue] | Mapping[Any, StateValue] | None"
)
"""What a strategy may save. Types are kept exactly: tuples stay tuples, float32 stays float32."""

Buffer: TypeAlias = bytes | bytearray | memoryview


class Arrays(Protocol):
    """Bytes of the arrays that `split_state` returned separately, by their number."""

    def __getitem__(self, number: int, /) -> Buffer:
        """Return one array's bytes."""


_INT64 = range(-(2**63), 2**63)
_MAX_DEPTH = 100
_DTYPE = re.compile(
    r"[<>|=](?:[biufc]\d{1,2}|[SU]\d{1,9}|[Mm]8(?:\[\d*[a-zA-Z]{1,2}\])?)", re.ASCII
)
_BIT_GENERATORS = {
    kind.__name__: kind
    for kind in (
        np.random.MT19937,
        np.random.PCG64,
        np.random.PCG64DXSM,
        np.random.Philox,
        np.random.SFC64,
    )
}


def encode_state(state: Mapping[str, StateValue], name: str = "state_dict()") -> bytes:
    """Encode ``state`` as JSON (ASCII); ``name`` names it in errors.

    Raises:
        UnsavableState: a value that cannot be stored exactly; names it.
    """
    return split_state(state, None, name)[0]


def decode_state(document: Buffer) -> dict[str, Any]:
    """Decode the state that `encode_state` wrote; its arrays are writable.

    Raises:
        StoredDataError: not written by `encode_state`.
    """
    return join_state(document, ())


def split_state(
    state: Mapping[str, StateValue], inline_bytes: int | None, name: str = "state_dict()"
) -> tuple[bytes, list[Buffer]]:
    """Encode as `encode_state` does, but return arrays above ``inline_bytes`` separately, uncopied.

    Raises:
        UnsavableState: a value that cannot be stored exactly; names it.
    """
    encoder = _Encoder(inline_bytes)
    document = encoder.encode(dict(state), name, 0)
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii"), encoder.apart


def join_state(document: Buffer, apart: Arrays) -> dict[str, Any]:
    """Decode the state that `split_state` encoded; its arrays are writable copies.

    Raises:
        StoredDataError: not written by `split_state`.
    """
    try:
        state = _Decoder(apart).decode(json.loads(bytes(document)))
    except (
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
        binascii.Error,
        struct.error,
    ) as error:
        raise StoredDataError(f"not a state that flmq stored: {error!r}") from error
    if not isinstance(state, dict):
        raise StoredDataError(f"not a state that flmq stored: a {type(state).__name__}")
    return state


class _Encoder:
    """Convert values to what JSON can hold."""

    def __init__(self, inline_bytes: int | None) -> None:
        self._inline_bytes = inline_bytes
        self.apart: list[Buffer] = []

    def encode(self, value: object, where: str, depth: int) -> Any:
        """Encode ``value``, which is at the place ``where`` (for errors)."""
        if depth > _MAX_DEPTH:
            raise UnsavableState(where, value, "it is nested too deeply, or holds itself")
        # By exact type: a subclass (an Enum, a defaultdict) would be restored as something else.
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind in _PLAIN:
            return _PLAIN[kind](value)
        if isinstance(value, np.generic):
            return {"~scalar": _scalar(value, where)}
        if kind is np.ndarray:
            assert isinstance(value, np.ndarray)
            return {"~array": self._array(value, where)}
        if kind in (list, tuple):
            assert isinstance(value, list | tuple)
            items = [self.encode(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
            return items if kind is list else {"~tuple": items}
        if kind is dict:
            assert isinstance(value, dict)
            return self._dict(value, where, depth)
        return self._generator(value, where, depth)

    def _dict(self, value: dict[Any, Any], where: str, depth: int) -> Any:
        items = {k: self.encode(v, f"{where}[{k!r}]", depth + 1) for k, v in value.items()}
        if all(type(key) is str and not key.startswith("~") for key in items):
            return items
        return {"~dict": [[self.encode(k, f"{where} key", depth + 1), v] for k, v in items.items()]}

    def _array(self, array: np.ndarray[Any, Any], where: str) -> Any:
        _check_dtype(array, array.dtype, where)
        # The memory order decides in which order numpy adds, and so the last bits.
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        flat = np.ascontiguousarray(array.T if fortran else array).reshape(-1)
        data: Buffer = flat.view(np.uint8).data if flat.nbytes else b""
        outline = {"dtype": array.dtype.str, "shape": list(array.shape), "fortran": fortran}
        if self._inline_bytes is None or len(data) <= self._inline_bytes:
            return {**outline, "bytes": _base64(data)}
        self.apart.append(data)
        return {**outline, "blob": len(self.apart) - 1}

    def _generator(self, value: object, where: str, depth: int) -> Any:
        if type(value) is random.Random:
            return {"~random": self.encode(value.getstate(), where, depth + 1)}
        if type(value) is not np.random.Generator:
            raise UnsavableState(where, value)
        bits = value.bit_generator
        kind = type(bits).__name__
        if _BIT_GENERATORS.get(kind) is not type(bits):
            raise UnsavableState(where, bits, f"use one of numpy's: {', '.join(_BIT_GENERATORS)}")
        seed = getattr(bits, "seed_seq", None)
        return {
            "~generator": {
                "kind": kind,
                "seed": self.encode(getattr(seed, "state", None), where, depth + 1),
                "state": self.encode(bits.state, where, depth + 1),
            }
        }


class _Decoder:
    """Convert what JSON holds to values."""

    def __init__(self, apart: Arrays) -> None:
        self._apart = apart

    def decode(self, stored: Any) -> Any:
        """Return the value that ``stored`` represents."""
        if isinstance(stored, list):
            return [self.decode(item) for item in stored]
        if not isinstance(stored, dict):
            return stored
        if len(stored) == 1:
            (mark,) = stored
            if mark.startswith("~"):
                return self._marked(mark, stored[mark])
        return {key: self.decode(value) for key, value in stored.items()}

    def _marked(self, mark: str, stored: Any) -> Any:
        match mark:
            case "~int":
                return int(stored, 16)
            case "~float":
                return struct.unpack(">d", bytes.fromhex(stored))[0]
            case "~bytes":
                return base64.b64decode(stored, validate=True)
            case "~tuple":
                return tuple(self.decode(item) for item in stored)
            case "~dict":
                return {self.decode(key): self.decode(value) for key, value in stored}
            case "~array":
                return self._array(stored)
            case "~scalar":
                return _read_scalar(stored)
            case "~generator":
                return self._numpy_generator(stored)
            case "~random":
                generator = random.Random()
                generator.setstate(self.decode(stored))
                return generator
        raise ValueError(f"unknown mark {mark!r}")

    def _array(self, stored: Any) -> np.ndarray[Any, Any]:
        dtype, shape = _read_dtype(stored["dtype"]), tuple(map(int, stored["shape"]))
        if "blob" in stored:
            data: Buffer = self._apart[stored["blob"]]
        else:
            data = base64.b64decode(stored["bytes"], validate=True)
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{len(data)} bytes for an array of {dtype} and shape {shape}")
        array = np.empty(shape, dtype, order="F" if stored["fortran"] else "C")
        if len(data):
            flat = (array.T if stored["fortran"] else array).reshape(-1)
            flat.view(np.uint8)[:] = np.frombuffer(data, np.uint8)
        return array

    def _numpy_generator(self, stored: Any) -> np.random.Generator:
        seed = self.decode(stored["seed"])
        sequence = np.random.SeedSequence(0) if seed is None else np.random.SeedSequence(**seed)
        bits = _BIT_GENERATORS[stored["kind"]](sequence)
        bits.state = self.decode(stored["state"])
        return np.random.Generator(bits)


def _plain_int(value: Any) -> Any:
    return value if value in _INT64 else {"~int": hex(value)}


def _plain_float(value: Any) -> Any:
    return value if math.isfinite(value) else {"~float": struct.pack(">d", value).hex()}


def _plain_bytes(value: Any) -> Any:
    return {"~bytes": _base64(value)}


_PLAIN = {int: _plain_int, float: _plain_float, bytes: _plain_bytes}


def _scalar(value: np.generic, where: str) -> Any:
    # numpy's dtype and bytes of a text drop trailing zeros; the text itself keeps them.
    if isinstance(value, np.str_):
        return {"dtype": "U", "bytes": _base64(value.encode("utf-32-le", "surrogatepass"))}
    if isinstance(value, np.bytes_):
        return {"dtype": "S", "bytes": _base64(bytes(value))}
    _check_dtype(value, value.dtype, where)
    return {"dtype": value.dtype.str, "bytes": _base64(value.tobytes())}


def _read_scalar(stored: Any) -> Any:
    data = base64.b64decode(stored["bytes"], validate=True)
    if stored["dtype"] == "U":
        return np.str_(data.decode("utf-32-le", "surrogatepass"))
    if stored["dtype"] == "S":
        return np.bytes_(data)
    dtype = _read_dtype(stored["dtype"])
    if len(data) != dtype.itemsize:
        raise ValueError(f"{len(data)} bytes for a {dtype}")
    return np.frombuffer(data, dtype)[0]


def _check_dtype(value: object, dtype: np.dtype[Any], where: str) -> None:
    # ml_dtypes' bfloat16 and the like report themselves as void: their name would be lost.
    if _DTYPE.fullmatch(dtype.str) is None or np.dtype(dtype.str) != dtype:
        raise UnsavableState(
            where,
            value,
            f"its dtype {dtype} is not one of booleans, numbers, fixed-length texts and times; "
            "save a view or a conversion of it",
        )


def _read_dtype(text: Any) -> np.dtype[Any]:
    if _DTYPE.fullmatch(text) is None:
        raise ValueError(f"dtype {text!r}")
    dtype: np.dtype[Any] = np.dtype(text)
    return dtype


def _base64(data: Buffer) -> str:
    return base64.b64encode(data).decode("ascii")
