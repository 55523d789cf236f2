"""Replies in another float dtype than the model's: cast to it, for a job that says so."""

from __future__ import annotations

import numpy as np

from flmq.common.dtypes import first_not_finite, is_float, is_narrow, rounded
from flmq.common.errors import MalformedMessage
from flmq.common.parameter import bytes_to_ndarray, ndarray_to_bytes, tensor_spec
from flmq.common.tensor_names import tensor_called
from flmq.common.typing import NDArray, Parameters
from flmq.server.strategy.reply_check import ParametersSpec

__all__ = ["cast_like"]

_MAX_ITEMSIZE = 8  # no longdouble, which differs between machines


def cast_like(sent: ParametersSpec, got: Parameters) -> Parameters | str:
    """Return ``got`` with each float tensor rounded once to the float dtype that was sent.

    Where both have names, a tensor's dtype is that of its name: ``got`` may be a part of a model.
    The result is ``got`` itself if no dtype differs. Integers and complex numbers are never cast,
    nor to them: such tensors, and what does not fit otherwise, stay for the check to name. A text
    says which finite number would become infinite.

    Takes the memory of the result while it is made.
    """
    if got.tensor_type != sent.tensor_type:
        return got
    try:
        kinds = [tensor_spec(tensor).dtype for tensor in got.tensors]
    except MalformedMessage:
        return got
    by_name = dict(zip(sent.names, sent.specs, strict=False))
    if len(got.names) == len(kinds) and by_name.keys() >= set(got.names):
        wanted = [by_name[name].dtype for name in got.names]
    elif len(kinds) == len(sent.specs):
        wanted = [spec.dtype for spec in sent.specs]
    else:
        return got
    differs = [a != b and _is_cast(a) and _is_cast(b) for a, b in zip(kinds, wanted, strict=True)]
    if not any(differs):
        return got
    tensors = []
    for index, (tensor, dtype, cast) in enumerate(zip(got.tensors, wanted, differs, strict=True)):
        if not cast:
            tensors.append(bytes(tensor))
            continue
        values = bytes_to_ndarray(tensor, copy=False)
        result = _cast(values, dtype)
        if first_not_finite(result) is not None and first_not_finite(values) is None:
            return (
                f"{tensor_called(index, got.names or sent.names)} has numbers beyond {dtype}, to "
                f"which it is cast from {values.dtype}: scale or clip them, or train in {dtype}"
            )
        tensors.append(ndarray_to_bytes(result))
    return Parameters(tensors, got.tensor_type, got.names)


def _is_cast(dtype: np.dtype[np.generic]) -> bool:
    return is_float(dtype) and dtype.itemsize <= _MAX_ITEMSIZE


def _cast(values: NDArray, dtype: np.dtype[np.generic]) -> NDArray:
    if is_narrow(values.dtype):
        values = values.astype(np.float32)  # exact
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return rounded(values, dtype)
