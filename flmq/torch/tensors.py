"""Tensors to arrays and back, bit for bit, without a copy where both can share memory."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from flmq.common.dtypes import NARROW_FLOATS
from flmq.common.errors import UsageError
from flmq.common.typing import NDArray

__all__ = ["UnsupportedTensor", "to_ndarray", "to_tensor"]

_BITS = {1: (torch.uint8, np.uint8), 2: (torch.int16, np.int16)}
"""What both have to see the bits of numbers as, by the numbers' bytes."""
_LACKING = {
    getattr(torch, name): (_BITS[dtype.itemsize][0], dtype)
    for name, dtype in NARROW_FLOATS.items()
    if hasattr(torch, name)
}
"""Dtypes that numpy lacks: what to see their bits as, and the dtype of ml_dtypes."""
_OF_ML_DTYPES = {ours: (bits, theirs) for theirs, (bits, ours) in _LACKING.items()}


class UnsupportedTensor(UsageError):
    """A tensor that cannot be exchanged: sparse, quantized, on the meta device, not a tensor."""


def to_ndarray(tensor: torch.Tensor) -> NDArray:
    """Return the values of ``tensor`` as an array of the same shape and dtype.

    A dense tensor in main memory shares it with the array; any other is copied there. bfloat16 and
    float8 become the dtypes of ml_dtypes.

    Raises:
        UnsupportedTensor: it has no dense values, or its dtype has no counterpart.
    """
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "on the meta device" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"
        raise UnsupportedTensor(
            f"a tensor is {kind}: only dense tensors with values can be exchanged; convert it, for "
            "instance with .to_dense() or .dequantize()"
        )
    dense = tensor.detach().cpu().resolve_conj().resolve_neg()
    try:
        if dense.dtype in _LACKING:
            bits, dtype = _LACKING[dense.dtype]
            array: NDArray = dense.contiguous().view(bits).numpy().view(dtype)
            return array
        plain: NDArray = dense.numpy()
    except (TypeError, RuntimeError) as error:
        raise UnsupportedTensor(
            f"a tensor of {tensor.dtype} has no counterpart in numpy ({error}): convert it, for "
            "instance with .float()"
        ) from error
    return plain


def to_tensor(array: NDArray) -> torch.Tensor:
    """Return ``array`` as a tensor of the same shape and dtype, in main memory.

    They share memory if the array is contiguous and of native byte order. Do not write to a tensor
    that was made of a read-only array: copy it into a model.

    Raises:
        UnsupportedTensor: torch has no such dtype.
    """
    native = np.asarray(array, array.dtype.newbyteorder("="))
    bits, dtype = _OF_ML_DTYPES.get(native.dtype, (None, None))
    if bits is not None:
        plain = _BITS[native.itemsize][1]
        native = np.ascontiguousarray(native).view(plain).reshape(array.shape)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*not writable", UserWarning)
            tensor = torch.from_numpy(native)
    except (TypeError, ValueError) as error:
        raise UnsupportedTensor(f"torch has no tensors of {array.dtype} ({error})") from error
    return tensor if dtype is None else tensor.view(dtype)
